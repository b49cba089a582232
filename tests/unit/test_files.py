"""engine.files: which entry a copy makes, decided before anything is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.engine import files
from minicontainer.errors import Error, NotFound


class Inside(files._Inside):
    """The container's end on a plain directory."""

    def __init__(self, root: Path) -> None:
        self.root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "etc").mkdir(parents=True)
    (top / "etc" / "file").write_text("content")
    (top / "absolute").symlink_to("/etc")
    (top / "relative").symlink_to("etc/../etc")
    (top / "out").symlink_to("../../../../../etc/file")
    (top / "dangling").symlink_to("/etc/new")
    (top / "loop").symlink_to("loop")
    (top / "etc" / "up").symlink_to("../absolute/file")
    return top


def find(root: Path, path: str, *, follow: bool) -> tuple[str, str, bool]:
    """(directory below root, entry, whether it exists) of what a path leads to."""
    end = Inside(root)
    try:
        with files._located(end, end.normal(path), follow=follow) as found:
            directory = os.readlink(f"/proc/self/fd/{found.directory_fd}")
            return os.path.relpath(directory, root), found.name, found.status is not None
    finally:
        os.close(end.root_fd)


@pytest.mark.parametrize(
    ("path", "follow", "expected"),
    [
        ("/etc/file", False, ("etc", "file", True)),
        ("etc/file", False, ("etc", "file", True)),
        ("//etc/./x/../file", False, ("etc", "file", True)),
        ("/../../etc/file", False, ("etc", "file", True)),
        ("/", False, (".", ".", True)),
        ("/missing", False, (".", "missing", False)),
        ("/absolute/file", False, ("etc", "file", True)),
        ("/absolute", False, (".", "absolute", True)),
        ("/absolute", True, (".", "etc", True)),
        ("/relative", True, (".", "etc", True)),
        ("/out", True, ("etc", "file", True)),
        ("/dangling", True, ("etc", "new", False)),
        ("/etc/up", True, ("etc", "file", True)),
    ],
)
def test_paths_are_resolved_inside_the_root(
    root: Path, path: str, follow: bool, expected: tuple[str, str, bool]
) -> None:
    assert find(root, path, follow=follow) == expected


def test_a_loop_of_links_ends(root: Path) -> None:
    with pytest.raises(OSError):
        find(root, "/loop", follow=True)


def test_resolving_leaves_no_descriptors(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    find(root, "/etc/up", follow=True)
    with pytest.raises(OSError):
        find(root, "/loop", follow=True)
    assert os.listdir("/proc/self/fd") == before


MISSING, DIRECTORY, FILE = "missing", "directory", "file"


@pytest.mark.parametrize(
    ("there", "destination", "directory", "outcome"),
    [
        (MISSING, "x", False, False),
        (MISSING, "x/", False, NotFound),
        (MISSING, "x", True, False),
        (MISSING, "x/", True, False),
        (DIRECTORY, "x", False, True),
        (DIRECTORY, "x/", False, True),
        (DIRECTORY, "x", True, True),
        (FILE, "x", False, False),
        (FILE, "x/", False, Error),
        (FILE, "x/.", False, Error),
        (FILE, "x", True, Error),
    ],
)
def test_what_stands_at_the_destination_decides(
    tmp_path: Path, there: str, destination: str, directory: bool, outcome: bool | type[Error]
) -> None:
    if there == DIRECTORY:
        (tmp_path / "x").mkdir()
    elif there == FILE:
        (tmp_path / "x").write_text("")
    status = os.stat(tmp_path / "x") if there != MISSING else None
    found = files._Found(-1, "x", status)
    if isinstance(outcome, bool):
        assert files._goes_into(found, destination, directory) is outcome
    else:
        with pytest.raises(outcome):
            files._goes_into(found, destination, directory)
