"""Which cgroups a process sees: covered, read-only, bound, delegated, behind a namespace."""

from __future__ import annotations

import os

import pytest

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives import cgroups
from tests.support import groups

pytestmark = [
    pytest.mark.root,
    pytest.mark.cgroup,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def layout():
    return groups.detect()


@pytest.fixture
def parent(layout):
    with groups.parent_of_groups(layout) as path:
        yield path


def as_user(layout, function, *arguments):
    """`function` in a child that is user 1000 and, on v2, in a group of its own group's below."""
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    return function(*arguments)


def test_an_ordinary_user_has_no_groups_unless_some_are_delegated(layout, parent):
    def try_it():
        found = cgroups.detect()
        group = cgroups.create(found, "/minicontainer/x", {"pids": {"limit": 5}}, strict=False)
        group.join()
        group.kill()
        group.delete()
        with pytest.raises(Error, match="the pids controller is not available") as caught:
            cgroups.create(found, "/minicontainer/x", {"pids": {"limit": 5}})
        return found.mode, group.unenforced, caught.value.hint

    mode, unenforced, hint = groups.in_child(as_user, layout, try_it)
    assert (mode, unenforced) == ("none", ["pids"])
    assert "Delegate=yes" in hint


def test_a_delegated_group_gives_an_ordinary_user_limits(layout, parent):
    if layout.mode != "v2":
        pytest.skip("only cgroup v2 can be delegated safely")
    top = cgroups.create(layout, f"{parent}/user", {})
    shell = cgroups.create(layout, f"{parent}/user/session/shell", {})
    for group in (top, cgroups.open_group(layout, f"{parent}/user/session"), shell):
        directory = group.directories()["unified"]
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
            os.chown(directory + name, 1000, 1000)

    def try_it():
        found = cgroups.detect()
        group = cgroups.create(found, "/minicontainer/x", {"pids": {"limit": 5}})
        assert groups.in_child(groups.groups_inside, group) == f"0::{parent}/user/minicontainer/x\n"
        limit = groups.value(group, "pids")
        group.kill()
        group.delete()
        return found.mode, found.unified, limit

    def session():
        shell.join()
        return as_user(layout, try_it)

    mode, unified, limit = groups.in_child(session)
    assert (mode, unified, limit) == ("v2", top.directories()["unified"], "5")


def test_hierarchies_that_are_covered_or_read_only_do_not_count(layout):
    def look(act):
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        act()
        return tuple(cgroups.detect())

    def cover():
        kernel.mount("tmpfs", "/sys/fs/cgroup", "tmpfs")

    def read_only():
        for point in groups.hierarchies(layout):
            flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY
            kernel.mount(None, point, None, flags)

    assert groups.in_child(look, cover) == ("none", {}, None)
    assert groups.in_child(look, read_only) == ("none", {}, None)
    assert groups.in_child(look, lambda: None) == tuple(layout)


def test_below_a_bound_part_of_the_hierarchies_paths_count_from_it(layout, parent):
    """As in a container that sees its own group only, and no cgroup namespace."""
    own = cgroups.create(layout, f"{parent}/outer", {})
    inner = cgroups.create(layout, f"{parent}/outer/init", {}) if layout.mode == "v2" else own

    def contained():
        inner.join()
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        for directory, point in {
            (directory, layout.controllers.get(name, layout.unified))
            for name, directory in own.directories().items()
        }:
            kernel.mount(directory, point, None, kernel.MS_BIND)
        if layout.mode == "hybrid":
            kernel.mount("tmpfs", layout.unified, "tmpfs")
        group = cgroups.create(cgroups.detect(), "/minicontainer/x", {"pids": {"limit": 9}})
        return groups.in_child(groups.groups_inside, group)

    lines = groups.in_child(contained).splitlines()
    line = next(line for line in lines if ":pids:" in line or line[:3] == "0::")
    assert line.endswith(f"{parent}/outer/minicontainer/x")


@pytest.mark.skipif(not kernel.CLONE_NEWCGROUP, reason="no cgroup namespaces")
def test_in_a_cgroup_namespace_paths_count_from_its_root(layout, parent):
    own = cgroups.create(layout, f"{parent}/outer", {})

    def contained():
        own.join()
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP)
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        if layout.mode == "v2":  # make room: no limits below a group with processes
            cgroups.create(layout, f"{parent}/outer/init", {}).join()
        kernel.mount("tmpfs", "/sys/fs/cgroup", "tmpfs")
        # Fresh mounts: these begin at the namespace's root.
        for point in groups.hierarchies(layout):
            names = [name for name, mount in layout.controllers.items() if mount == point]
            data = ",".join("none,name=systemd" if name == "systemd" else name for name in names)
            os.makedirs(point, exist_ok=True)
            kernel.mount("cgroup", point, "cgroup" if names else "cgroup2", 0, data or None)
        group = cgroups.create(cgroups.detect(), "/minicontainer/x", {"pids": {"limit": 9}})
        return sorted(group.directories())

    directories = groups.in_child(contained)
    assert "pids" in directories or "unified" in directories
    found = cgroups.open_group(layout, f"{parent}/outer/minicontainer/x")
    assert groups.value(found, "pids") == "9"
