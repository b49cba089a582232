"""engine.inspect: the shape of what is shown, also for what cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minicontainer.engine import inspect, records
from minicontainer.paths import Paths

ID = "a1" * 32


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    records.prepare(found)
    os.mkdir(found.container(ID))
    return found


def shown(paths: Paths, options: dict[str, object]) -> dict[str, object]:
    record = records.created_record(ID, "box", options, {"lower": [options.get("rootfs", "/")]})
    records.write(paths.record(ID), record)
    found = inspect.container(records.Container(paths, ID))
    json.dumps(found)
    return found


def test_a_minimal_record_has_every_key(paths: Paths) -> None:
    found = shown(paths, {})
    assert found["Name"] == "/box" and found["Status"] == "created"
    assert found["Mounts"] == [] and found["Path"] == "" and found["Args"] == []


def test_a_damaged_record_is_shown_with_its_reason(paths: Paths) -> None:
    Path(paths.record(ID)).write_text("[")
    found = inspect.container(records.Container(paths, ID))
    json.dumps(found)
    assert found["Id"] == ID and found["Status"] == "broken"
    assert "container.json" in found["State"]["Error"]
    assert inspect.sizes(records.Container(paths, ID)) == (0, 0)


def test_binds_are_written_as_they_were_typed(paths: Paths) -> None:
    mounts = [
        {"type": "bind", "source": "/a", "destination": "/b", "options": ["ro", "rslave"]},
        {"type": "bind", "source": "/c", "destination": "/d", "options": []},
        {"type": "tmpfs", "source": "tmpfs", "destination": "/t", "options": ["size=1"]},
    ]
    found = shown(paths, {"mounts": mounts})
    assert found["HostConfig"]["Binds"] == ["/a:/b:ro,rslave", "/c:/d"]  # type: ignore[index]
    assert found["HostConfig"]["Tmpfs"] == {"/t": "size=1"}  # type: ignore[index]
    first, second, third = found["Mounts"]  # type: ignore[misc]
    assert (first["RW"], first["Propagation"]) == (False, "rslave")
    assert (second["RW"], second["Propagation"]) == (True, "rprivate")
    assert (third["Type"], third["Source"], third["Propagation"]) == ("tmpfs", "", "")


@pytest.mark.parametrize(
    ("word", "shown_as"), [(None, "SIGTERM"), ("INT", "SIGINT"), ("SIGHUP", "SIGHUP"), ("9", "9")]
)
def test_stop_signals_have_their_full_names(word: str | None, shown_as: str) -> None:
    assert inspect._signal(word) == shown_as
