"""Sockets as plain descriptors: what we need of them, without the module `socket`.

All of them are close-on-exec.  Interrupted calls are repeated, as Python's own are.
Man pages: socket(2), unix(7), sendmsg(2), cmsg(3).
"""

from __future__ import annotations

import os
import sys

from minicontainer.kernel import constants
from minicontainer.kernel.libc import (
    WORD,
    address,
    failure,
    library,
    number,
    output,
    output_address,
    text,
    words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "accept",
    "flock",
    "loopback_up",
    "netlink_open",
    "peer_credentials",
    "receive_message",
    "recv",
    "send",
    "send_message",
    "shutdown",
    "socketpair",
    "unix_connect",
    "unix_listen",
]

_socket = library("socket", "iii")
_socketpair = library("socketpair", "iiip")
_bind = library("bind", "ipI")
_listen = library("listen", "ii")
_connect = library("connect", "ipI")
_accept4 = library("accept4", "ippi")
_send = library("send", "isLi")
_sendmsg = library("sendmsg", "ipi")
_recvmsg = library("recvmsg", "ipi")
_getsockopt = library("getsockopt", "iiipp")
_setsockopt = library("setsockopt", "iiipI")
_shutdown = library("shutdown", "ii")
_flock = library("flock", "ii")

_PATH_LONGEST = 107  # of sun_path, without its final null byte
_HEADER = WORD + 8  # struct cmsghdr: length, level, type


def socketpair(kind: int = constants.SOCK_SEQPACKET) -> tuple[int, int]:
    """Two connected Unix sockets."""
    answer = bytearray(8)
    _socketpair(constants.AF_UNIX, kind | constants.SOCK_CLOEXEC, 0, output(answer))
    return number(answer[:4]), number(answer[4:])


def send_message(fd: int, data: bytes, fds: Iterable[int] = ()) -> None:
    """Send one message, with copies of descriptors. BrokenPipeError if nobody listens."""
    handed = words(fds, 4)
    control = b""
    if handed:
        header = words((_HEADER + len(handed),)) + words(
            (constants.SOL_SOCKET, constants.SCM_RIGHTS), 4
        )
        control = (header + handed).ljust(_aligned(_HEADER + len(handed)), b"\0")
    vector = words((address(data), len(data)))
    message = _message(address(vector), address(control) if control else 0, len(control))
    while True:
        try:
            _sendmsg(fd, bytes(message), constants.MSG_NOSIGNAL)
            return
        except InterruptedError:
            continue


def receive_message(fd: int, size: int = 65536, max_fds: int = 4) -> tuple[bytes, list[int]]:
    """The next message, b"" at the end of file, and the descriptors that came with it.

    A message that is longer or brings more descriptors is refused with EMSGSIZE.
    """
    data = bytearray(size)
    control = bytearray(_aligned(_HEADER + 4 * max_fds))
    vector = words((output_address(data), size))
    message = _message(address(vector), output_address(control), len(control))
    while True:
        try:
            length = _recvmsg(fd, output(message), constants.MSG_CMSG_CLOEXEC)
            break
        except InterruptedError:
            continue
    fds = _descriptors(control[: number(message[5 * WORD : 6 * WORD])])
    if number(message[6 * WORD : 6 * WORD + 4]) & (constants.MSG_TRUNC | constants.MSG_CTRUNC):
        for received in fds:
            os.close(received)
        raise OSError(90, os.strerror(90))  # EMSGSIZE
    return bytes(data[:length]), fds


def _message(vector: int, control: int, control_length: int) -> bytearray:
    # struct msghdr: each of its fields is a word or padded to one; those that are not (the
    # lengths of the C library musl) are followed by their padding and are below 4 GiB.
    return bytearray(words((0, 0, vector, 1, control, control_length, 0)))


def _descriptors(control: bytes | bytearray) -> list[int]:
    found = []
    while len(control) >= _HEADER:
        length = number(control[:WORD])
        kind = number(control[WORD : WORD + 4]), number(control[WORD + 4 : _HEADER])
        if length < _HEADER:
            break
        if kind == (constants.SOL_SOCKET, constants.SCM_RIGHTS):
            found += [number(control[at : at + 4]) for at in range(_HEADER, length, 4)]
        control = control[_aligned(length) :]
    return found


def _aligned(length: int) -> int:
    return (length + WORD - 1) // WORD * WORD


def unix_listen(
    path: str, backlog: int = 16, mode: int = 0o600, kind: int = constants.SOCK_STREAM
) -> int:
    """A socket listening at a path that does not exist yet, made with `mode`."""
    fd = _socket(constants.AF_UNIX, kind | constants.SOCK_CLOEXEC, 0)
    try:
        # Linux takes the mode of the file from that of the socket: it is never open wider.
        os.fchmod(fd, mode)
        _at_address(_bind, fd, path)
        _listen(fd, backlog)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unix_connect(path: str, kind: int = constants.SOCK_STREAM) -> int:
    """A socket connected to the one that listens at `path`."""
    fd = _socket(constants.AF_UNIX, kind | constants.SOCK_CLOEXEC, 0)
    try:
        _at_address(_connect, fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _at_address(function: Callable[..., int], fd: int, path: str) -> None:
    """Bind or connect; a path too long for an address goes through its directory's descriptor."""
    encoded = text(path) or b""
    directory = -1
    try:
        if len(encoded) > _PATH_LONGEST:
            parent, name = os.path.split(encoded)
            directory = os.open(parent or b".", constants.O_PATH | constants.O_DIRECTORY)
            encoded = b"/proc/self/fd/%d/%s" % (directory, name)
            if len(encoded) > _PATH_LONGEST:
                raise OSError(36, os.strerror(36), path)  # ENAMETOOLONG
        socket_address = words((constants.AF_UNIX,), 2) + encoded + b"\0"
        function(fd, socket_address, len(socket_address))
    finally:
        if directory >= 0:
            os.close(directory)


def accept(fd: int) -> int:
    """The next connection of a listening socket."""
    while True:
        try:
            return _accept4(fd, None, None, constants.SOCK_CLOEXEC)
        except InterruptedError:
            continue


def peer_credentials(fd: int) -> tuple[int, int, int]:
    """The (pid, uid, gid) of the process that connected or listens at the other side."""
    answer = bytearray(12)
    length = bytearray(words((len(answer),), 4))
    _getsockopt(fd, constants.SOL_SOCKET, constants.SO_PEERCRED, output(answer), output(length))
    return number(answer[:4]), number(answer[4:8]), number(answer[8:])


def send(fd: int, data: bytes) -> int:
    """How much of the data was sent; BrokenPipeError, never SIGPIPE, if nobody listens."""
    while True:
        try:
            return _send(fd, data, len(data), constants.MSG_NOSIGNAL)
        except InterruptedError:
            continue


def recv(fd: int, size: int) -> bytes:
    """Up to `size` bytes, b"" at the end of file."""
    return os.read(fd, size)


def shutdown(fd: int, how: int) -> None:
    """Close one direction (SHUT_RD, SHUT_WR) of a connection, or both."""
    _shutdown(fd, how)


def netlink_open(protocol: int) -> int:
    """A netlink socket that reports errors in words (NETLINK_EXT_ACK)."""
    fd = _socket(constants.AF_NETLINK, constants.SOCK_RAW | constants.SOCK_CLOEXEC, protocol)
    try:
        one = words((1,), 4)
        for option in (constants.NETLINK_EXT_ACK, constants.NETLINK_CAP_ACK):
            _setsockopt(fd, constants.SOL_NETLINK, option, one, len(one))
    except OSError:  # before 4.12 there are no words
        pass
    return fd


def loopback_up() -> None:
    """Bring up the loopback interface, always number 1, of this network namespace. rtnetlink(7)

    One fixed message: the codec of `netlink` would cost a container without a network its import.
    """
    request = words((32,), 4) + words((constants.RTM_NEWLINK, 5), 2) + words((1, 0), 4)
    link = words((0, 1, constants.IFF_UP, constants.IFF_UP), 4)
    fd = netlink_open(constants.NETLINK_ROUTE)
    try:
        send(fd, request + link)
        error = -int.from_bytes(os.read(fd, 4096)[16:20], sys.byteorder, signed=True)
    finally:
        os.close(fd)
    if error:
        raise failure(error)


def flock(fd: int, operation: int) -> None:
    """Lock or unlock an open file. BlockingIOError with LOCK_NB if it is held. flock(2)"""
    while True:
        try:
            _flock(fd, operation)
            return
        except InterruptedError:
            continue
