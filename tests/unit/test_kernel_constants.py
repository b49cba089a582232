"""The generated constants against those that this Python was compiled with."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import termios

import pytest

from minicontainer import kernel
from minicontainer.kernel import constants, sysno

OURS = {
    name: value
    for name, value in vars(constants).items()
    if name[0].isupper() and isinstance(value, int)
}
# The C library has its own idea of these: O_LARGEFILE is 0 on 64 bits, SIGRTMIN may be 35.
ELSEWHERE = {"O_LARGEFILE", "SIGRTMIN"}


@pytest.mark.parametrize("module", [os, resource, signal, socket, stat, termios])
def test_constants_agree_with_pythons_own(module: object) -> None:
    theirs = {
        name: int(value) for name in OURS if isinstance(value := getattr(module, name, None), int)
    }
    wrong = {
        name: (OURS[name], value)
        for name, value in theirs.items()
        if name not in ELSEWHERE and OURS[name] != value
    }
    assert len(theirs) > 5
    assert wrong == {}


def test_the_families_that_the_door_promises_are_there() -> None:
    prefixes = """MS_ MNT_ CLONE_ CAP_ O_ AT_ RESOLVE_ MOVE_MOUNT_ OPEN_TREE_ FSCONFIG_ FSMOUNT_
    FSOPEN_ MOUNT_ATTR_ PR_ SECCOMP_ BPF_ KEYCTL_ MFD_ F_SEAL_ RTM_ IFLA_ NLM_F_ IFF_ SIG RLIMIT_
    TIOC S_IF SECBIT_""".split()
    for prefix in prefixes:
        assert any(name.startswith(prefix) for name in vars(kernel)), prefix
    assert kernel.PROC_SUPER_MAGIC == 0x9FA0
    assert kernel.OVERLAYFS_SUPER_MAGIC == 0x794C7630
    assert kernel.P_PIDFD == 3


def test_capabilities_are_numbered_without_holes() -> None:
    bits = {value for name, value in OURS.items() if name.startswith("CAP_")}
    assert bits == set(range(kernel.CAP_LAST_CAP + 1))


def test_well_known_system_call_numbers() -> None:
    known = {
        "x86_64": {"read": 0, "openat": 257, "seccomp": 317, "clone3": 435, "mseal": 462},
        "i386": {"exit": 1, "pivot_root": 217, "socketcall": 102, "openat2": 437},
        "x32": {"read": 0x40000000, "execve": 0x40000000 + 520, "mseal": 0x40000000 + 462},
        "aarch64": {"openat": 56, "read": 63, "clone": 220, "mount_setattr": 442},
        "arm": {"mmap2": 192, "openat": 322, "set_tls": 0xF0005},
        "riscv64": {"openat": 56, "riscv_flush_icache": 259},
        "ppc64le": {"openat": 286, "swapcontext": 249},
        "s390x": {"openat": 288, "s390_pci_mmio_read": 353},
    }
    assert tuple(known) == sysno.MACHINES
    for machine, calls in known.items():
        table = sysno.table(machine)
        assert {name: table.get(name) for name in calls} == calls
        assert len(table) > 300
        assert len(set(table.values())) >= len(table) - 3  # a few have two names


def test_machines_lack_what_they_never_had() -> None:
    assert "open" not in sysno.table("aarch64")
    assert "mmap2" not in sysno.table("x86_64")
    with pytest.raises(ValueError):
        sysno.table("pdp11")


def test_audit_architectures_are_those_of_the_elf_machine() -> None:
    assert sysno.AUDIT_ARCH["x86_64"] == 0xC000003E
    assert sysno.AUDIT_ARCH["aarch64"] == 0xC00000B7
    assert set(sysno.AUDIT_ARCH) == set(sysno.MACHINES)


def test_the_doors_own_numbers_are_those_of_the_table() -> None:
    if constants.MACHINE not in sysno.MACHINES:
        pytest.skip(f"no table for {constants.MACHINE}")
    table = sysno.table(constants.MACHINE)
    for name, value in OURS.items():
        if name.startswith("SYS_"):
            assert table[name[4:]] == value, name
