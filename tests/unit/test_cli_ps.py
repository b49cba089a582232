"""cli/ps and cli/filters: rows and choices, on records that were really written."""

from __future__ import annotations

import json
import os

import pytest

from minicontainer import cli
from minicontainer.cli import containers, filters, ps
from minicontainer.engine import records, times
from minicontainer.errors import Error, NotFound
from minicontainer.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

SECOND = 1_000_000_000
NOW = 1_800_000_000.0


def keep(paths: Paths, digit: str, name: str, age: float, **options: Any) -> str:
    """Write the record of a container created `age` seconds before NOW."""
    container_id = digit * 64
    os.makedirs(paths.container(container_id))
    chosen = {"command": ["true"], "label": {}, "mounts": [], "network": "none", **options}
    record = records.created_record(container_id, name, chosen, {"lower": ["/"]})
    record["created"] = times.text(int((NOW - age) * SECOND))
    records.write(paths.record(container_id), record, durable=False)
    os.symlink(container_id, paths.name(name))
    return container_id


def end(paths: Paths, container_id: str, age: float, code: int) -> None:
    """Record that the container ended `age` seconds before NOW."""
    moment = times.text(int((NOW - age) * SECOND))
    last = {"started_at": moment, "finished_at": moment, "exit_code": code}
    records.write(paths.last(container_id), last, durable=False)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Three containers: `old` has ended with 0, `middle` with 3, `new` was never started."""
    found = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    records.prepare(found)
    old = keep(found, "a", "old", 7200, label={"x": "1", "y": "2"}, restart={"name": "always"})
    middle = keep(found, "b", "middle", 600, label={"x": "2"}, network="host")
    keep(
        found, "c", "new", 5,
        entrypoint=["sh", "-c"], command=["echo 'one two three'"],
        mounts=[{"type": "bind", "source": "/a/long/directory/name", "destination": "/b"}],
    )  # fmt: skip
    end(found, old, 3600, 0)
    end(found, middle, 120, 3)
    return found


def call(paths: Paths, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    argv = ["minicontainer", "--root", paths.root, "--runroot", paths.runroot, *words]
    code = cli.dispatch(argv)
    said = capfd.readouterr()
    return code, said.out, said.err


def row(paths: Paths, name: str, *, full: bool = False) -> dict[str, Any]:
    container = records.find(paths, name)
    return ps.row(container, container.status, NOW, full=full, sized=False)


def test_rows_tell_age_and_status(paths: Paths) -> None:
    assert row(paths, "old")["Status"] == "Exited (0) About an hour ago"
    assert row(paths, "old")["RunningFor"] == "2 hours ago"
    assert row(paths, "middle")["Status"] == "Exited (3) 2 minutes ago"
    assert row(paths, "new")["Status"] == "Created"
    assert row(paths, "new")["RunningFor"] == "5 seconds ago"


def test_rows_are_cut_unless_full(paths: Paths) -> None:
    short, full = row(paths, "new"), row(paths, "new", full=True)
    assert (short["ID"], full["ID"]) == ("c" * 12, "c" * 64)
    assert short["Command"] == '"sh -c echo \'one two…"'
    assert full["Command"] == "\"sh -c echo 'one two three'\""
    assert (short["Mounts"], full["Mounts"]) == ("/a/long/direct…", "/a/long/directory/name")
    assert row(paths, "old")["Labels"] == "x=1,y=2"
    assert row(paths, "old")["Label"]("y") == "2"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], []),
        (["-a"], ["new", "middle", "old"]),
        (["-n", "2"], ["new", "middle"]),
        (["-l"], ["new"]),
        (["-f", "status=exited"], ["middle", "old"]),
        (["-f", "status=stopped"], ["middle", "old"]),
        (["-f", "status=created", "-f", "status=exited"], ["new", "middle", "old"]),
        (["-f", "exited=3"], ["middle"]),
        (["-a", "-f", "label=x"], ["middle", "old"]),
        (["-a", "-f", "label=x=1"], ["old"]),
        (["-a", "-f", "label=x=1", "-f", "label=x=2"], ["middle", "old"]),
        (["-a", "-f", "label=x", "-f", "network=host"], ["middle"]),
        (["-a", "-f", "name=e"], ["new", "middle"]),
        (["-a", "-f", "name=^/?new$"], ["new"]),
        (["-a", "-f", "id=bb"], ["middle"]),
        (["-f", "before=middle"], ["old"]),
        (["-f", "since=old"], ["new", "middle"]),
        (["-a", "-f", "restart-policy=always"], ["old"]),
        (["-a", "-f", "restart-policy=no"], ["new", "middle"]),
        (["-a", "-f", "ancestor=x"], []),
        (["-a", "-f", "publish=80"], []),
    ],
)
def test_filters_choose(
    paths: Paths, capfd: pytest.CaptureFixture[str], words: list[str], names: list[str]
) -> None:
    code, out, err = call(paths, capfd, "ps", *words, "--format", "{{.Names}}")
    assert (code, out.split(), err) == (0, names, "")


def test_table_and_json_of_ps(paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(paths, capfd, "ps", "-a")
    lines = out.splitlines()
    assert lines[0].split("   ")[0] == "CONTAINER ID"
    assert [line[:12] for line in lines[1:]] == ["c" * 12, "b" * 12, "a" * 12]
    start = lines[0].index("NAMES")
    assert [line[start:] for line in lines[1:]] == ["new", "middle", "old"]
    _, out, _ = call(paths, capfd, "ps", "-l", "--format", "json")
    found = json.loads(out)
    assert all(isinstance(value, str) for value in found.values())
    assert set(found) == {"Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts",
                          "Names", "Networks", "Ports", "RunningFor", "Size", "State",
                          "Status"}  # fmt: skip
    _, out, _ = call(paths, capfd, "ps", "-aq", "--no-trunc")
    assert out.split() == ["c" * 64, "b" * 64, "a" * 64]
    _, out, _ = call(paths, capfd, "ps", "-a", "--format", r"table {{.Names}}\t{{.Label \"x\"}}"
                     .replace('\\"', '"'))  # fmt: skip
    assert out.splitlines() == ["NAMES     x", "new", "middle    2", "old       1"]
    assert call(paths, capfd, "ps", "--format", "{{.Nope}}")[0] == 0
    code, out, err = call(paths, capfd, "ps", "-a", "--format", "{{.Nope}}")
    assert (code, out) == (1, "")
    assert err.startswith("Error: template: no field Nope")


def test_damaged_record_is_one_line_and_hides_nothing(
    paths: Paths, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = "d" * 64
    os.mkdir(paths.container(damaged))
    with open(paths.record(damaged), "w") as file:
        file.write('{"id": ')
    code, out, _ = call(paths, capfd, "ps", "-a", "--format", "{{.ID}} {{.Status}}")
    assert code == 0
    assert f"{'d' * 12} Broken" in out.splitlines()
    assert len(out.splitlines()) == 4
    code, _, err = call(paths, capfd, "logs", "ddd")
    assert code == 1
    assert err.startswith("Error: container dddddddddddd is broken: ")
    assert "Hint: minicontainer rm -f dddddddddddd removes it" in err


def test_reading_verbs_refuse_another_layout(
    paths: Paths, capfd: pytest.CaptureFixture[str]
) -> None:
    with open(paths.version, "w") as file:
        file.write("99\n")
    for words in (["ps"], ["logs", "new"], ["rm", "new"], ["start", "--all"]):
        code, out, err = call(paths, capfd, *words)
        assert (code, out) == (1, "")
        assert "has layout version '99'" in err


def test_references_are_ids_names_and_prefixes(paths: Paths) -> None:
    for reference in ("a" * 64, "old", "/old", "aaa", "a"):
        assert containers.find(paths, reference).name == "old"
    keep(paths, "e", "web", 1)
    os.rename(paths.container("e" * 64), paths.container("a" * 63 + "e"))
    with pytest.raises(Error, match="beginning of several"):
        containers.find(paths, "aa")
    for reference in ("", "zz", "x/y", "..", "A"):
        with pytest.raises(NotFound, match="No such container"):
            containers.find(paths, reference)


def test_each_tries_all_and_reports_all(paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    seen = []

    def act(container: records.Container) -> None:
        seen.append(container.name)
        if container.name == "middle":
            raise Error("not this one")

    with pytest.raises(containers.SomeFailed) as caught:
        containers.each(paths, ["old", "middle", "none", "cc"], act)
    assert seen == ["old", "middle", "new"]
    assert [str(cause) for cause in caught.value.causes] == [
        "not this one", "No such container: none",
    ]  # fmt: skip
    assert capfd.readouterr().out == "old\ncc\n"


def test_conditions_need_a_known_key() -> None:
    for text in ("", "x", "x=1", "=1", "status=up", "exited=x", "name=[", "Label=a"):
        with pytest.raises(ValueError, match=r"\w"):
            filters.condition(text)
