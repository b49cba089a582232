"""Readers of /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from minicontainer.kernel import procfs


def test_a_line_of_mountinfo() -> None:
    mount = procfs.Mount(
        "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime shared:7 master:1 - ext3 /dev/r\\134t rw,errors=x"
    )
    assert (mount.mount_id, mount.parent_id, mount.device) == (36, 35, "98:0")
    assert (mount.root, mount.target, mount.source) == ("/mnt1", "/mnt/a b", "/dev/r\\t")
    assert mount.options == ["rw", "noatime"]
    assert mount.propagation == ["shared:7", "master:1"]
    assert (mount.fstype, mount.super_options) == ("ext3", ["rw", "errors=x"])


def test_a_mount_without_propagation_or_source() -> None:
    mount = procfs.Mount("1 0 0:1 / / ro -  none ro")
    assert mount.propagation == []
    mount = procfs.Mount("21 1 0:5 / /x\\040-\\040y rw - tmpfs  rw")
    assert (mount.target, mount.source, mount.super_options) == ("/x - y", "", ["rw"])


def test_mountinfo_of_this_process() -> None:
    mounts = procfs.mountinfo()
    assert any(mount.target == "/" for mount in mounts)
    assert any(mount.fstype == "proc" for mount in mounts)


def test_start_time_tells_processes_apart() -> None:
    mine = procfs.start_time(os.getpid())
    assert mine is not None and mine > 0
    assert procfs.start_time(1) != mine or os.getpid() == 1
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = procfs.start_time(child.pid)
    assert theirs is not None and theirs >= mine
    assert procfs.parent(child.pid) == os.getpid()
    child.communicate(b"\n")
    assert procfs.start_time(child.pid) is None
    assert procfs.state(child.pid) is None


def test_a_name_with_parentheses_does_not_confuse() -> None:
    program = "import sys; open('/proc/self/comm', 'w').write('a) R 1 (b'); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    for _ in range(500):
        if b"a) R" in procfs.read(f"/proc/{child.pid}/comm"):
            break
        time.sleep(0.01)
    assert procfs.parent(child.pid) == os.getpid()
    child.communicate(b"\n")


def test_a_zombie_still_has_its_start_time() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert procfs.start_time(pid) is not None
    assert procfs.state(pid) == "Z"
    os.waitpid(pid, 0)


def test_facts_about_this_machine() -> None:
    assert len(procfs.boot_id()) == 36
    assert procfs.namespace_inode("self", "mnt") == procfs.namespace_inode(os.getpid(), "mnt")
    status = procfs.read_status()
    assert int(status["Pid"]) == os.getpid()
    assert int(status["CapEff"], 16) >= 0
    with pytest.raises(FileNotFoundError):
        procfs.namespace_inode(0, "mnt")
