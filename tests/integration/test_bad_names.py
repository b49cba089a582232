"""Flags, verbs, names and ids that do not exist: one clear line, and nothing left behind."""

from __future__ import annotations

import os
import re

import pytest

from tests.support.refusals import refused
from tests.support.runner import Engine

pytestmark = pytest.mark.root


def run(engine: Engine, *flags: str) -> list[str]:
    return ["run", "--rm", *flags, "--rootfs", engine.rootfs]


# Flags and verbs


@pytest.mark.parametrize(
    ("word", "near"),
    [("--memroy", "--memory"), ("--volumes", "--volume"), ("--readonly", "--read-only")],
)
def test_unknown_flag_names_the_nearest(engine: Engine, word: str, near: str) -> None:
    said = engine.fails(125, "run", word, "--rootfs", engine.rootfs, "true")
    assert f"unknown flag: {word}" in said and near in said.partition("Hint:")[2]


def test_unknown_verb(engine: Engine) -> None:
    assert "unknown command: rnu" in refused(engine, 1, "rnu", "true")


def test_flag_without_its_value(engine: Engine) -> None:
    assert "flag needs an argument: --name" in refused(engine, 125, "run", "--name")


def test_flag_that_is_not_built_yet_is_never_ignored(engine: Engine) -> None:
    for flag in ("--init", "--gpus", "--health-cmd", "--volumes-from"):
        said = refused(engine, 125, *run(engine, flag), "true")
        assert said == f"{flag}: not supported yet"


def test_terminal_without_a_terminal(engine: Engine) -> None:
    said = refused(engine, 1, *run(engine, "-it"), "true")
    assert said == "the input device is not a TTY"


# Names and ids


def test_duplicate_name(engine: Engine) -> None:
    container_id = engine.detach("--name", "taken")
    for verb, code in (("run", 125), ("create", 1)):
        said = engine.fails(code, verb, "--name", "taken", "--rootfs", engine.rootfs, "true")
        sentence = f'The container name "/taken" is already in use by container "{container_id}"'
        assert f"Error: Conflict. {sentence}\n" in said
    assert engine.containers() == [container_id]
    assert os.listdir(f"{engine.root}/tmp") == []


VERBS = [
    ["start"],
    ["stop"],
    ["kill"],
    ["wait"],
    ["restart"],
    ["pause"],
    ["unpause"],
    ["rm"],
    ["logs"],
    ["inspect"],
    ["top"],
    ["port"],
    ["diff"],
    ["attach"],
    ["export"],
    ["rename", "X", "new"],
    ["exec", "X", "true"],
    ["update", "--cpus", "1", "X"],
]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: str(words[0]))
def test_unknown_container(engine: Engine, words: list[str]) -> None:
    kind = "object" if words[0] == "inspect" else "container"
    for name in ("nobody", "0123456789ab", "..", "a/b"):
        line = [word.replace("X", name) for word in words]
        said = refused(engine, 1, *line, *([] if len(line) > 1 else [name]))
        assert f"No such {kind}: {name}" in said


def test_unknown_container_in_cp(engine: Engine) -> None:
    for words in (["nobody:/etc/passwd", "-"], ["/etc/passwd", "nobody:/tmp"]):
        assert "No such container: nobody" in refused(engine, 1, "cp", *words)


def test_ambiguous_prefix(engine: Engine) -> None:
    for _ in range(17):  # sixteen digits: two of them begin with the same one
        engine.ok("create", "--rootfs", engine.rootfs, "true")
    ids = engine.containers()
    digits = [container_id[0] for container_id in ids]
    double = next(digit for digit in digits if digits.count(digit) > 1)
    for words in (["rm"], ["start"], ["inspect"]):
        said = engine.fails(1, *words, double)
        assert f"{double} is the beginning of several container ids" in said
        assert next(one for one in ids if one[0] == double)[:12] in said.partition("Hint:")[2]
    assert engine.containers() == ids


def test_exec_into_a_stopped_container(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "true")
    assert "is not running" in engine.fails(1, "exec", "c", "true")


def test_error_cannot_steer_the_terminal(engine: Engine) -> None:
    """What the user typed comes back in the sentence, its control characters escaped."""
    terminal = engine.pty("run", "--rootfs", engine.rootfs, "x\x1b]0;owned\x07\r\x9b31m")
    assert terminal.wait() == 127
    assert "executable file not found" in terminal.output
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", terminal.output.strip())
    assert engine.ok("rm", "--all").count("\n") == 1
