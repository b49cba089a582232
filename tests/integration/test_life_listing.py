"""ps, top, port, info, version and help: what is told of containers and of ourselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest

import minicontainer
from tests.support.runner import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

pytestmark = pytest.mark.root

LONG = "echo a rather long command line; sleep 1000; echo"


@pytest.fixture(scope="module")
def crowd(shared_engine: Engine) -> Iterator[Engine]:
    """Five containers: fresh, gone (it exited with 3), old (with 0), up, ice (paused)."""
    engine, rootfs = shared_engine, shared_engine.rootfs
    engine.ok("create", "--name", "fresh", "-l", "tier=front", "--rootfs", rootfs, "true")
    engine.run("run", "--name", "gone", "--rootfs", rootfs, "sh", "-c", "exit 3")
    engine.ok("run", "--name", "old", "-l", "tier=back", "-l", "x", "--rootfs", rootfs, "true")
    engine.detach("--name", "up", "-l", "tier=back", command=("sh", "-c", LONG))
    engine.detach("--name", "ice", "--network", "host", "--restart", "always")
    engine.ok("pause", "ice")
    yield engine
    engine.ok("rm", "--all", "--force")


def names(engine: Engine, *flags: str) -> list[str]:
    return engine.ok("ps", "--format", "{{.Names}}", *flags).split()


# --------------------------------------------------------------------------------------- ps


def test_ps_shows_what_is_alive_newest_first(crowd: Engine) -> None:
    assert names(crowd) == ["ice", "up"]


def test_ps_all_shows_everything(crowd: Engine) -> None:
    assert names(crowd, "-a") == ["ice", "up", "old", "gone", "fresh"]


def test_ps_has_the_columns_of_docker(crowd: Engine) -> None:
    lines = crowd.ok("ps", "-a").splitlines()
    heading = re.split(r" {2,}", lines[0])
    assert heading == ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    starts = [lines[0].index(word) for word in heading]
    row = next(line for line in lines if line.endswith(" up"))
    cells = [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None])]
    assert cells[0] == crowd.inspect("up")["Id"][:12]
    assert cells[2] == '"sh -c \'echo a rathe…"' or cells[2].endswith('…"')
    assert re.fullmatch(r"(Less than a second|\d+ seconds?|About a minute) ago", cells[3])
    assert cells[4].startswith("Up ")
    assert cells[6] == "up"


def test_ps_without_containers_has_headings_only(engine: Engine) -> None:
    told = engine.ok("ps", "--all")
    assert told.count("\n") == 1 and told.startswith("CONTAINER ID   ")
    assert not os.path.exists(engine.root)


def test_ps_tells_the_status_in_words(crowd: Engine) -> None:
    told = crowd.ok("ps", "-a", "--format", "{{.Names}}:{{.Status}}:{{.State}}").splitlines()
    age = r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes)"
    patterns = {
        "fresh": r"Created:created",
        "gone": rf"Exited \(3\) {age} ago:exited",
        "old": rf"Exited \(0\) {age} ago:exited",
        "up": rf"Up {age}:running",
        "ice": rf"Up {age} \(Paused\):paused",
    }
    for line in told:
        name, _, rest = line.partition(":")
        assert re.fullmatch(patterns.pop(name), rest), line
    assert not patterns


def test_ps_quiet_gives_ids(crowd: Engine) -> None:
    up, ice = crowd.inspect("up")["Id"], crowd.inspect("ice")["Id"]
    assert crowd.ok("ps", "-q").split() == [ice[:12], up[:12]]
    assert crowd.ok("ps", "-q", "--no-trunc").split() == [ice, up]


def test_ps_untruncated_shows_the_whole_command(crowd: Engine) -> None:
    line = next(line for line in crowd.ok("ps", "--no-trunc").splitlines() if line.endswith(" up"))
    assert f'"sh -c {LONG}"' in line
    assert line.startswith(crowd.inspect("up")["Id"])


def test_ps_latest_and_last(crowd: Engine) -> None:
    assert names(crowd, "-l") == ["ice"]
    assert names(crowd, "-n", "3") == ["ice", "up", "old"]


def test_ps_as_json_is_an_object_a_line(crowd: Engine) -> None:
    rows = [json.loads(line) for line in crowd.ok("ps", "-a", "--format", "json").splitlines()]
    assert [row["Names"] for row in rows] == ["ice", "up", "old", "gone", "fresh"]
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert rows[2]["Labels"] == "tier=back,x="
    assert rows[0]["Networks"] == "host"


def test_ps_takes_a_table_template(crowd: Engine) -> None:
    told = crowd.ok("ps", "--format", "table {{.Names}}\\t{{.State}}")
    assert [line.split() for line in told.splitlines()] == [
        ["NAMES", "STATE"],
        ["ice", "paused"],
        ["up", "running"],
    ]


def test_ps_template_can_read_one_label(crowd: Engine) -> None:
    assert crowd.ok("ps", "--format", '{{.Label "tier"}}') == "\nback\n"


def test_ps_with_an_unknown_field_is_an_error(crowd: Engine) -> None:
    crowd.fails(1, "ps", "--format", "{{.Nonsense}}")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["name=o"], ["old", "gone"]),
        (["name=^/old$"], ["old"]),
        (["name=^old$", "name=^up$"], ["up", "old"]),
        (["label=tier"], ["up", "old", "fresh"]),
        (["label=tier=back"], ["up", "old"]),
        (["label=tier=back", "status=running"], ["up"]),
        (["status=exited"], ["old", "gone"]),
        (["status=stopped"], ["old", "gone"]),
        (["status=created"], ["fresh"]),
        (["status=paused"], ["ice"]),
        (["status=paused", "status=running"], ["ice", "up"]),
        (["exited=3"], ["gone"]),
        (["before=old"], ["gone", "fresh"]),
        (["since=old"], ["ice", "up"]),
        (["network=host"], ["ice"]),
        (["restart-policy=always"], ["ice"]),
        (["publish=80"], []),
        (["ancestor=alpine"], []),
    ],
    ids=lambda value: "+".join(value) or "none",
)
def test_ps_filters(crowd: Engine, conditions: list[str], expected: list[str]) -> None:
    flags = [word for condition in conditions for word in ("--filter", condition)]
    assert names(crowd, "-a", *flags) == expected


def test_ps_filters_by_id(crowd: Engine) -> None:
    assert names(crowd, "-a", "-f", f"id={crowd.inspect('old')['Id'][:12]}") == ["old"]


def test_ps_filter_by_state_needs_no_all(crowd: Engine) -> None:
    assert names(crowd, "-f", "status=exited") == ["old", "gone"]


@pytest.mark.parametrize("condition", ["", "nonsense=1", "status=flying", "exited=x", "name=("])
def test_ps_refuses_a_filter_it_does_not_know(crowd: Engine, condition: str) -> None:
    crowd.fails(125, "ps", "--filter", condition)


def test_ps_with_an_unknown_neighbour_is_an_error(crowd: Engine) -> None:
    assert "No such container: nobody" in crowd.fails(1, "ps", "--filter", "before=nobody")


def test_container_ls_is_ps(crowd: Engine) -> None:
    assert crowd.ok("container", "ls", "-q") == crowd.ok("ps", "-q")


def test_listing_into_a_pipe_that_closes_is_quiet(crowd: Engine) -> None:
    told = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *crowd.argv("ps", "-a")],
        env=crowd.env,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    assert told.stderr == b""


# ------------------------------------------------------------------------------- walkthrough


def test_processes_inside_are_numbered_from_one(engine: Engine) -> None:
    """The walkthrough of the README: `ps aux` shows the command as PID 1."""
    told = engine.ok("run", "--rm", "--rootfs", engine.rootfs, "ps", "-o", "pid,args")
    assert [line.split(None, 1) for line in told.splitlines()[1:]] == [["1", "ps -o pid,args"]]


# --------------------------------------------------------------------------- port and ourselves


def test_port_is_empty_and_one_that_is_asked_for_an_error(crowd: Engine) -> None:
    assert crowd.ok("port", "up") == ""
    assert "no public port '80/tcp'" in crowd.fails(1, "port", "up", "80")
    crowd.fails(1, "port", "nobody")


def test_version_says_what_it_stands_on(engine: Engine) -> None:
    told = engine.ok("version")
    assert told.startswith(f"minicontainer version {minicontainer.__version__}\n")
    for word in ("Python:", f"Kernel:       {os.uname().release}", "Machine:", "Cgroup mode:"):
        assert word in told
    assert engine.ok("--version") == f"minicontainer version {minicontainer.__version__}\n"
    assert engine.ok("version", "--format", "{{.Version}}") == f"{minicontainer.__version__}\n"
    assert json.loads(engine.ok("version", "--format", "json"))["Version"]


def test_info_counts_the_containers(crowd: Engine) -> None:
    facts = json.loads(crowd.ok("info", "--format", "json"))
    counts = {word: facts[f"Containers{word}"] for word in ("", "Running", "Paused", "Stopped")}
    assert counts == {"": 5, "Running": 1, "Paused": 1, "Stopped": 3}
    assert facts["RootDir"] == crowd.root
    assert crowd.ok("info", "-f", "{{.NCPU}}") == f"{os.cpu_count()}\n"
    assert "Containers: 5\n Running: 1\n Paused: 1\n Stopped: 3\n" in crowd.ok("info")


def test_help_knows_every_verb(engine: Engine) -> None:
    told = engine.ok("help")
    assert "Usage:" in told and "Commands:" in told
    verbs = re.findall(r"^  ([a-z]+) +[A-Z]", told, re.MULTILINE)
    assert {"run", "exec", "ps", "logs", "cp", "prune", "help"} <= set(verbs)
    for verb in verbs:
        text = engine.ok("help", verb)
        assert text.startswith(f"Usage:  minicontainer {verb}"), verb


def test_help_is_given_on_every_way(engine: Engine) -> None:
    assert engine.ok("ps", "--help") == engine.ok("help", "ps")
    assert engine.ok() == engine.ok("help") == engine.ok("--help")


def test_unknown_verb_names_the_nearest(engine: Engine) -> None:
    assert "did you mean start" in engine.fails(1, "strat")


def test_age_is_counted_from_the_start(engine: Engine) -> None:
    engine.ok("run", "--name", "c", "--rootfs", engine.rootfs, "true")
    time.sleep(1.1)
    engine.ok("create", "--name", "d", "--rootfs", engine.rootfs, "sleep", "1000")
    engine.ok("start", "d")
    assert engine.ok("ps", "--format", "{{.Status}}") in (
        "Up Less than a second\n",
        "Up 1 second\n",
    )
    told = engine.ok("ps", "-a", "-f", "name=c", "--format", "{{.RunningFor}}").strip()
    assert re.fullmatch(r"\d+ seconds? ago", told)


def test_sizes_are_shown_on_demand(engine: Engine) -> None:
    script = "dd if=/dev/zero of=/f bs=1000 count=2000 2>/dev/null"
    engine.ok("run", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert re.match(r"2MB \(virtual \d", engine.ok("ps", "-a", "--format", "{{.Size}}"))
    assert "SIZE" in engine.ok("ps", "-as").splitlines()[0]
