"""logs: what a container wrote, kept in Docker's format, rotated, followed."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.support.runner import Engine, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

pytestmark = pytest.mark.root

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


def log_path(engine: Engine, name: str) -> str:
    return str(engine.inspect(name)["LogPath"])


def entries(engine: Engine, name: str) -> list[dict[str, str]]:
    with open(log_path(engine, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def written(shared_engine: Engine) -> Iterator[Engine]:
    """A container `w` that wrote four lines to stdout, one to stderr, and has ended."""
    script = "echo 1; sleep 0.3; echo oops >&2; sleep 0.3; echo 2; echo 3; printf end"
    options = ("run", "--name", "w", "--rootfs", shared_engine.rootfs)
    shared_engine.ok(*options, "sh", "-c", script)
    yield shared_engine
    shared_engine.ok("rm", "w")


# ------------------------------------------------------------------------------ what is kept


def test_file_is_dockers_json(written: Engine) -> None:
    found = entries(written, "w")
    assert [(entry["stream"], entry["log"]) for entry in found] == [
        ("stdout", "1\n"),
        ("stderr", "oops\n"),
        ("stdout", "2\n"),
        ("stdout", "3\n"),
        ("stdout", "end"),
    ]
    assert all(re.fullmatch(STAMP, entry["time"]) for entry in found)
    path = log_path(written, "w")
    container_id = written.inspect("w")["Id"]
    assert path == f"{written.root}/containers/{container_id}/{container_id}-json.log"
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_times_are_those_of_the_writing(written: Engine) -> None:
    stamps = [entry["time"] for entry in entries(written, "w")]
    first, second, third = (float(stamp[17:-1]) for stamp in stamps[:3])
    assert 0.25 < (second - first) % 60 < 5
    assert 0.25 < (third - second) % 60 < 5


@pytest.mark.parametrize(
    ("tail", "expected"),
    [("0", ""), ("1", "end"), ("3", "2\n3\nend"), ("99", "1\n2\n3\nend"), ("all", "1\n2\n3\nend")],
)
def test_tail_gives_the_last_lines(written: Engine, tail: str, expected: str) -> None:
    assert written.ok("logs", "--tail", tail, "w") == expected


@pytest.mark.parametrize("flag", ["--tail=x", "--since=yesterday", "--until=99x"])
def test_nonsense_is_refused(written: Engine, flag: str) -> None:
    written.fails(125, "logs", flag, "w")


def test_logs_of_a_container_that_never_ran_are_empty(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "true")
    assert engine.ok("logs", "c") == ""
    assert engine.ok("logs", "-f", "c") == ""


def test_long_line_is_cut_into_pieces_that_join_again(engine: Engine) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo"
    engine.ok("run", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert [len(entry["log"]) for entry in entries(engine, "c")] == [16384, 16384, 7233]
    assert engine.ok("logs", "c") == "x" * 40000 + "\n"
    assert engine.ok("logs", "-n1", "c") == "x" * 40000 + "\n"
    assert len(re.findall(STAMP, engine.ok("logs", "-t", "c"))) == 1


def test_bytes_that_are_no_text_become_a_mark_in_the_log_only(engine: Engine) -> None:
    argv = ("run", "--name", "c", "--rootfs", engine.rootfs, "printf", "a\\377b\\342\\202\\254\\n")
    assert engine.run(*argv, text=False).stdout == b"a\xffb\xe2\x82\xac\n"
    assert engine.ok("logs", "c") == "a\ufffdb€\n"


# ------------------------------------------------------------------------------------ rotation


def test_one_file_alone_is_cut_off(engine: Engine) -> None:
    options = ("--name", "c", "--log-opt", "max-size=2k", "--log-opt", "max-file=1")
    engine.ok("run", *options, "--rootfs", engine.rootfs, "seq", "1000")
    assert os.path.getsize(log_path(engine, "c")) <= 2000
    assert engine.ok("logs", "c").endswith("1000\n")
    assert not os.path.exists(log_path(engine, "c") + ".1")


# -------------------------------------------------------------------------------- following


def test_following_shows_what_comes_and_ends_with_the_container(engine: Engine) -> None:
    script = "echo first; read line; echo got $line; read line; echo last >&2"
    writer = engine.popen("run", "-i", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert writer.stdin is not None
    assert writer.stdout is not None and writer.stdout.readline() == b"first\n"
    follower = engine.popen("logs", "--follow", "c")
    assert follower.stdout is not None and follower.stderr is not None
    assert follower.stdout.readline() == b"first\n"
    writer.stdin.write(b"one\n")
    writer.stdin.flush()
    assert follower.stdout.readline() == b"got one\n"
    writer.stdin.write(b"two\n")
    writer.stdin.flush()
    assert follower.stderr.readline() == b"last\n"
    assert follower.wait(20) == 0
    assert writer.wait(20) == 0


def test_following_the_tail_begins_with_the_tail(engine: Engine) -> None:
    engine.detach("--name", "c", command=("sh", "-c", "seq 5; sleep 0.7; echo more"))
    engine.wait_for_output("c", "5\n")
    assert engine.ok("logs", "-f", "-n", "2", "c") == "4\n5\nmore\n"


def test_following_goes_through_a_restart_of_the_container(engine: Engine) -> None:
    script = "echo run; [ -e /twice ] && exit 0; touch /twice; exit 1"
    engine.ok(
        *("create", "--name", "c", "--restart", "on-failure", "--rootfs", engine.rootfs),
        *("sh", "-c", f"sleep 0.2; {script}"),
    )
    engine.ok("start", "c")
    assert engine.ok("logs", "-f", "c") == "run\nrun\n"


def test_follower_whose_reader_leaves_ends(engine: Engine) -> None:
    engine.detach("--name", "c", command=("sh", "-c", "while :; do echo y; sleep 0.05; done"))
    follower = engine.popen("logs", "-f", "c")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.stdout.close()
    assert follower.wait(20) in (141, -signal.SIGPIPE)
    assert engine.status("c") == "running"


def test_follower_ends_by_interrupt_and_the_container_lives(engine: Engine) -> None:
    engine.detach("--name", "c", command=("sh", "-c", "echo y; sleep 1000"))
    follower = engine.popen("logs", "-f", "c")
    assert follower.stdout is not None and follower.stdout.readline() == b"y\n"
    follower.send_signal(signal.SIGINT)
    _, error = follower.communicate(timeout=20)
    assert follower.returncode in (130, -signal.SIGINT)
    assert error == b""
    assert engine.status("c") == "running"


# ---------------------------------------------------------------------------------- no log


@pytest.mark.parametrize(
    "option", ["max-size=0", "max-size=x", "max-file=0", "max-file=1.5", "colour=red", "x"]
)
def test_log_option_that_means_nothing_is_refused(shared_engine: Engine, option: str) -> None:
    flags = ("--log-opt", option, "--rootfs", shared_engine.rootfs)
    shared_engine.fails(125, "run", *flags, "true")


def test_log_options_are_shown(engine: Engine) -> None:
    argv = ("create", "--name", "c", "--log-opt", "max-size=1m", "--rootfs", engine.rootfs, "true")
    engine.ok(*argv)
    assert engine.inspect("c")["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "1000000"},
    }


def test_log_that_was_torn_by_a_crash_is_read_and_continued(engine: Engine) -> None:
    engine.ok("run", "--name", "c", "--rootfs", engine.rootfs, "echo", "whole")
    with open(log_path(engine, "c"), "a") as file:
        file.write('{"log":"to')
    assert engine.ok("logs", "c") == "whole\n"
    engine.ok("start", "-a", "c")
    wait_until(lambda: engine.ok("logs", "c") == "whole\nwhole\n", "the second run in the log")
