"""Every call of the door that makes a descriptor makes it close-on-exec."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import pytest

from minicontainer import kernel
from tests.support.child import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

PACKAGE = Path(kernel.__file__).parent


def pty_peer() -> int:
    master = kernel.open("/dev/ptmx", kernel.O_RDWR | kernel.O_NOCTTY)
    kernel.unlock_pty(master)
    return kernel.open_pty_peer(master, kernel.O_RDWR | kernel.O_NOCTTY)


def connected() -> int:
    directory = os.open("/tmp", os.O_PATH)
    os.fchdir(directory)
    name = f"cloexec-{os.getpid()}"
    listening = kernel.unix_listen(name)
    try:
        kernel.unix_connect(name)
        return kernel.accept(listening)
    finally:
        os.unlink(name)


def received() -> int:
    ours, theirs = kernel.socketpair()
    kernel.send_message(ours, b"x", [0])
    return kernel.receive_message(theirs)[1][0]


def new_mount() -> int:
    kernel.unshare(kernel.CLONE_NEWNS)
    context = kernel.fsopen("tmpfs", 0)
    kernel.fsconfig(context, kernel.FSCONFIG_CMD_CREATE, None, None, 0)
    return kernel.fsmount(context, 0)


def device_filter() -> int:
    # r0 = 1; exit
    program = bytes.fromhex("b7000000010000009500000000000000")
    return kernel.bpf_load(kernel.BPF_PROG_TYPE_CGROUP_DEVICE, program, "allow")


MAKERS: dict[str, Callable[[], int]] = {
    "accept": connected,
    "dup": lambda: kernel.dup(0),
    "memfd_create": lambda: kernel.memfd_create("x", 0),
    "netlink_open": lambda: kernel.netlink_open(kernel.NETLINK_ROUTE),
    "open": lambda: kernel.open("/", kernel.O_RDONLY),
    "open_pty_peer": pty_peer,
    "open_tree": lambda: kernel.open_tree(kernel.AT_FDCWD, "/", 0),
    "openat2": lambda: kernel.openat2(kernel.AT_FDCWD, "/", kernel.O_PATH),
    "pidfd_open": lambda: kernel.pidfd_open(os.getpid()),
    "pipe2": lambda: kernel.pipe2()[0],
    "receive_message": received,
    "signalfd": lambda: kernel.signalfd([kernel.SIGTERM], 0),
    "socketpair": lambda: kernel.socketpair()[0],
    "unix_connect": connected,
    "unix_listen": connected,
}
AS_ROOT: dict[str, Callable[[], int]] = {
    "bpf_load": device_filter,
    "fsmount": new_mount,
    "fsopen": lambda: kernel.fsopen("tmpfs", 0),
}
# They make none, or only what their raw arguments ask for.
OTHERS = {"bpf", "dup2", "seccomp", "statfs_type"}


def leaks(make: Callable[[], int]) -> list[str] | str:
    """What the descriptors that came into being without the flag are; or why there are none."""
    before = set(os.listdir("/proc/self/fd"))
    try:
        made = make()
    except OSError as failure:
        if failure.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return f"{failure.call}: {failure.strerror}"  # type: ignore[attr-defined]
    assert not os.get_inheritable(made)
    return [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in set(os.listdir("/proc/self/fd")) - before
        if os.path.lexists(f"/proc/self/fd/{fd}") and os.get_inheritable(int(fd))
    ]


@pytest.mark.parametrize("name", [*MAKERS, *AS_ROOT])
def test_new_descriptors_are_close_on_exec(name: str) -> None:
    if name in AS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root")
    found = in_child(lambda: leaks({**MAKERS, **AS_ROOT}[name]))
    if isinstance(found, str):
        pytest.skip(found)
    assert found == []


def test_no_maker_of_descriptors_is_forgotten() -> None:
    """By the docstrings: "a descriptor", "a socket", "a pipe"."""
    found = set()
    for module in ("acts", "mounting", "processes", "signals", "sockets", "terminals"):
        tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                said = (ast.get_docstring(node) or "").lower()
                gives_numbers = "int" in ast.unparse(node.returns)
                if gives_numbers and any(
                    word in said for word in ("descriptor", "a socket", "sockets", "a pipe")
                ):
                    found.add(node.name)
    assert found - OTHERS <= MAKERS.keys() | AS_ROOT.keys()
    assert {"fsopen", "openat2", "socketpair", "pipe2", "open_tree"} <= found
