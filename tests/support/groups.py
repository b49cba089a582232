"""Control groups of tests: their place, programs to run in them, what the kernel says of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from minicontainer.primitives import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minicontainer.primitives.cgroups import Group, Layout

MIB = 1 << 20
# What the limits are called in the files of v1 and v2, for reading them back.
FILES = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "swap": ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    "pids": ("pids", "pids.max", "pids.max"),
    "quota": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "period": ("cpu", "cpu.cfs_period_us", "cpu.max"),
    "shares": ("cpu", "cpu.shares", "cpu.weight"),
    "cpus": ("cpuset", "cpuset.cpus", "cpuset.cpus"),
}

HOG = "x = bytearray(%d)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('lived')"
SPIN = "while True: pass"
# Forks as fast as it can, in every child as well, for ever.
BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
"""


def detect() -> Layout:
    """The layout of this machine; the test is skipped where there is none."""
    found = cgroups.detect()
    if found.mode == "none":
        pytest.skip("no cgroup hierarchy is writable here")
    return found


@contextmanager
def parent_of_groups(layout: Layout) -> Iterator[str]:
    """A path of our own; all below it is killed and removed afterwards, it too."""
    path = f"/minicontainer-test-{os.getpid()}"
    yield path
    left = cgroups.open_group(layout, path)
    left.kill()
    left.delete()
    assert not any(os.path.exists(point + path) for point in hierarchies(layout))


@contextmanager
def starter(layout: Layout, parent: str) -> Iterator[Callable[[Group, str], Any]]:
    """A function that starts Python code in a group; all are killed and reaped afterwards."""
    started = []

    def start(group: Group, code: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            preexec_fn=group.join,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        started.append(child)
        return child

    yield start
    cgroups.open_group(layout, parent).kill()
    for child in started:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def hierarchies(layout: Layout) -> set[str]:
    return {*layout.controllers.values(), *([layout.unified] if layout.unified else [])}


def has(layout: Layout, controller: str) -> bool:
    if controller in layout.controllers:
        return True
    if layout.mode != "v2":
        return False
    with open(f"{layout.unified}/cgroup.controllers") as file:
        return controller in file.read().split()


def need(layout: Layout, controller: str) -> None:
    if not has(layout, controller):
        pytest.skip(f"this kernel has no {controller} controller")


def value(group: Group, limit: str) -> str:
    """What the kernel holds for a limit."""
    controller, v1, v2 = FILES[limit]
    directories = group.directories()
    if controller in directories:
        path = f"{directories[controller]}/{v1}"
    else:
        path = f"{directories['unified']}/{v2}"
    with open(path) as file:
        return file.read().strip()


def has_swap_accounting(group: Group) -> bool:
    try:
        value(group, "swap")
    except FileNotFoundError:
        return False
    return True


def in_child(function: Callable[..., Any], *arguments: object) -> Any:
    """What `function` returns in a forked child, or the exception it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result: tuple[bool, Any] = (True, function(*arguments))
        except BaseException as failure:
            result = (False, f"{type(failure).__name__}: {failure}")
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        worked, result = pickle.loads(stream.read())
    os.waitpid(pid, 0)
    assert worked, result
    return result


def groups_inside(group: Group) -> str:
    """/proc/self/cgroup of a process that has joined the group."""
    group.join()
    with open("/proc/self/cgroup") as file:
        return file.read()


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)
