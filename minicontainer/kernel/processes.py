"""Namespaces, capabilities, limits and other attributes of processes.

Man pages: unshare(2), setns(2), prctl(2), capget(2), seccomp(2), keyctl(2), bpf(2),
pidfd_open(2), close_range(2), memfd_create(2), execveat(2), prlimit(2), personality(2).
"""

from __future__ import annotations

import os

from minicontainer.kernel import constants
from minicontainer.kernel.libc import (
    WORD,
    address,
    library,
    number,
    output,
    output_address,
    syscall,
    text,
    words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

__all__ = [
    "bpf",
    "bpf_load",
    "bpf_query",
    "capget",
    "capset",
    "close_range",
    "execveat",
    "getrlimit",
    "join_session_keyring",
    "keyctl",
    "memfd_create",
    "personality",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "seccomp",
    "setdomainname",
    "sethostname",
    "setns",
    "setrlimit",
    "unshare",
]

_unshare = library("unshare", "i")
_setns = library("setns", "ii")
_sethostname = library("sethostname", "sL")
_setdomainname = library("setdomainname", "sL")
_prctl = library("prctl", "iLLLL")
_personality = library("personality", "L")
_capget = syscall("pp")
_capset = syscall("pp")
_seccomp = syscall("IIp")
_keyctl = syscall("illll")
_join_session_keyring = syscall("is")
_bpf = syscall("ipI")
_pidfd_open = syscall("iI")
_pidfd_send_signal = syscall("iipI")
_close_range = syscall("III")
_memfd_create = syscall("sI")
_execveat = syscall("isppi")
_prlimit = syscall("iipp")

_INFINITY = 2**64 - 1


def unshare(flags: int) -> None:
    """Move this process into new namespaces. unshare(2)"""
    _unshare(flags)


def setns(fd: int, nstype: int) -> None:
    """Join the namespace of a descriptor (of a pidfd: all of `nstype`, 5.8). setns(2)"""
    _setns(fd, nstype)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = text(name) or b""
    _sethostname(encoded, len(encoded))


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    encoded = text(name) or b""
    _setdomainname(encoded, len(encoded))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """An operation on this process, and what it gives. prctl(2)"""
    return _prctl(option, arg2, arg3, arg4, arg5)


def personality(persona: int) -> int:
    """Set the execution domain; the previous one. personality(2)"""
    return _personality(persona)


def capget(pid: int = 0) -> tuple[int, int, int]:
    """The (effective, permitted, inheritable) capabilities as bit masks. capget(2)"""
    header = words((constants._LINUX_CAPABILITY_VERSION_3, pid), 4)
    answer = bytearray(24)
    _capget(constants.SYS_capget, header, output(answer))
    low, high = ([number(answer[at + i : at + i + 4]) for i in (0, 4, 8)] for at in (0, 12))
    return low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities of this thread from bit masks. capset(2)"""
    header = words((constants._LINUX_CAPABILITY_VERSION_3, 0), 4)
    masks = (effective, permitted, inheritable)
    data = words([m & 0xFFFFFFFF for m in masks] + [m >> 32 for m in masks], 4)
    _capset(constants.SYS_capset, header, data)


def seccomp(operation: int, flags: int, program: bytes) -> int:
    """Install a filter program (its instructions), or do another operation on raw arguments.

    Gives 0, or with SECCOMP_FILTER_FLAG_NEW_LISTENER a descriptor. seccomp(2)
    """
    arguments = program
    if operation == constants.SECCOMP_SET_MODE_FILTER:
        # struct sock_fprog: the number of instructions, padded to a word, and their address.
        count = words((len(program) // 8,), 2)
        arguments = count.ljust(WORD, b"\0") + words((address(program),))
    return _seccomp(constants.SYS_seccomp, operation, flags, arguments)


def keyctl(operation: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """An operation on keys and keyrings that takes numbers only. keyctl(2)"""
    return _keyctl(constants.SYS_keyctl, operation, arg2, arg3, arg4, arg5)


def join_session_keyring(name: str | None) -> int:
    """The serial number of the session keyring joined: a new one for None."""
    return _join_session_keyring(
        constants.SYS_keyctl, constants.KEYCTL_JOIN_SESSION_KEYRING, text(name)
    )


def bpf(command: int, attributes: bytes) -> int:
    """A bpf(2) operation on `attributes` as the kernel lays them out; a descriptor or 0."""
    return _bpf(constants.SYS_bpf, command, attributes, len(attributes))


def bpf_query(command: int, attributes: bytes) -> bytes:
    """The attributes as the kernel leaves them after an operation that answers."""
    answer = bytearray(attributes)
    _bpf(constants.SYS_bpf, command, output(answer), len(answer))
    return bytes(answer)


def bpf_load(kind: int, program: bytes, name: str = "") -> int:
    """A descriptor (close-on-exec) of an eBPF program of a kind BPF_PROG_TYPE_*.

    The name may have letters, digits, `_` and `.`; the kernel keeps 15 of them.
    When the verifier refuses it, its log is the failure's `detail`.
    """
    licence = b"GPL\0"
    log = bytearray(65536)
    # union bpf_attr of BPF_PROG_LOAD, up to prog_name.
    attributes = words((kind, len(program) // 8), 4) + words(
        (address(program), address(licence)), 8
    )
    silent = words((0, 0), 4) + words((0,), 8)
    logging = words((1, len(log)), 4) + words((output_address(log),), 8)
    ending = words((0, 0), 4) + (text(name) or b"")[:15].ljust(16, b"\0")
    size = len(attributes + silent + ending)
    load = constants.BPF_PROG_LOAD
    try:
        return _bpf(constants.SYS_bpf, load, attributes + silent + ending, size)
    except OSError:
        pass  # once more with the log: it costs, so the first attempt goes without
    try:
        return _bpf(constants.SYS_bpf, load, attributes + logging + ending, size)
    except OSError as failure:
        failure.detail = log.partition(b"\0")[0].decode("utf-8", "replace").strip()  # type: ignore
        raise


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A descriptor (close-on-exec) of a process (5.3)."""
    return _pidfd_open(constants.SYS_pidfd_open, pid, flags)


def pidfd_send_signal(pidfd: int, signal: int, flags: int = 0) -> None:
    """Send a signal to the process of a descriptor (5.1)."""
    _pidfd_send_signal(constants.SYS_pidfd_send_signal, pidfd, signal, None, flags)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close the descriptors first..last (5.9), or mark them with CLOSE_RANGE_CLOEXEC (5.11)."""
    _close_range(constants.SYS_close_range, first, last, flags)


def memfd_create(name: str, flags: int = constants.MFD_CLOEXEC) -> int:
    """A descriptor of an anonymous file in memory (3.17)."""
    return _memfd_create(constants.SYS_memfd_create, text(name), flags | constants.MFD_CLOEXEC)


def execveat(
    dirfd: int, path: str, argv: Sequence[str], env: Mapping[str, str], flags: int = 0
) -> NoReturn:
    """Become the program at `path`, with AT_EMPTY_PATH that of the descriptor. execveat(2)"""
    strings = [text(word) or b"" for word in argv]
    variables = [text(f"{name}={value}") or b"" for name, value in env.items()]
    arguments = words([address(string) for string in strings] + [0])
    environment = words([address(variable) for variable in variables] + [0])
    _execveat(constants.SYS_execveat, dirfd, text(path), arguments, environment, flags)
    os._exit(127)  # not reached: execveat returns only to fail


def getrlimit(resource: int, pid: int = 0) -> tuple[int, int]:
    """The (soft, hard) limits of a resource; -1 is no limit. prlimit(2)"""
    answer = bytearray(16)
    _prlimit(constants.SYS_prlimit64, pid, resource, None, output(answer))
    soft, hard = number(answer[:8]), number(answer[8:])
    return -1 if soft == _INFINITY else soft, -1 if hard == _INFINITY else hard


def setrlimit(resource: int, limits: tuple[int, int], pid: int = 0) -> None:
    """Set the (soft, hard) limits of a resource; -1 is no limit. prlimit(2)"""
    new = words([limit & _INFINITY for limit in limits], 8)
    _prlimit(constants.SYS_prlimit64, pid, resource, new, None)
