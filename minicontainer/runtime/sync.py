"""The words that the parent and the container's first process exchange while it is set up.

    parent                              child (init)
    fork ─────────────────────────────▶ joins cgroups
                              PID  ◀──── only with a user namespace: a stage made it, and says
                            MAPS?  ◀──── which process is to be mapped, then which is init
    writes uid_map, gid_map; MAPS ────▶
                                         namespaces, rootfs, mounts, pivot, hostname, console
         READY (and the console) ◀────  all is set up; only the last hop is left
    state.json = created                 reads exec.fifo
    start: writes exec.fifo ──────────▶ closes everything, execve
    end of file on control.fifo ◀──────  it runs. Anything else there is a FAILURE record

Up to READY they speak over one SOCK_SEQPACKET pair; a message is one kind byte and a payload.
The two FIFOs in the state directory let another process than the creator start the container.
A FAILURE at any time ends the set-up; end of file on the pair means that the child died.
"""

from __future__ import annotations

import sys

from minicontainer import errors, kernel
from minicontainer.errors import Error, KernelError
from minicontainer.steps import kernel_error

PID, MAPS, READY, FAILURE = b"P", b"M", b"R", b"F"

_SEPARATOR = "\0"


def send(channel: int, kind: bytes, payload: str = "", fds: tuple[int, ...] = ()) -> None:
    """Send one message; raises OSError (EPIPE when the other side is gone)."""
    kernel.send_message(channel, kind + payload.encode("utf-8", "surrogateescape"), fds)


def receive(channel: int) -> tuple[bytes, str, list[int]]:
    """The next message: (kind, payload, descriptors); kind is empty at the end of the channel."""
    data, fds = kernel.receive_message(channel)
    return data[:1], data[1:].decode("utf-8", "surrogateescape"), fds


def encode_failure(failure: BaseException) -> str:
    """`failure` as text that `decode_failure` turns into an exception of the same class."""
    if isinstance(failure, OSError):
        failure = kernel_error("set up the container", failure)
    if isinstance(failure, Error):
        hint = failure.hint or ""
        number = getattr(failure, "errno", 0)
        call = getattr(failure, "syscall", "")
        name = type(failure).__name__
    else:
        hint, number, call, name = "", 0, "", "Error"
        failure = Error(f"internal error in the container's set-up: {failure!r}")
    return _SEPARATOR.join((name, str(number), call, hint, str(failure)))


def decode_failure(text: str) -> Error:
    """The exception that the child met."""
    name, number, call, hint, message = text.split(_SEPARATOR, 4)
    kind = getattr(errors, name, Error)
    if not issubclass(kind, Error) or kind is errors.CleanupError:
        kind = Error
    failure: Error = kind(message, hint=hint or None)
    if isinstance(failure, KernelError):
        from minicontainer import hints

        failure.errno, failure.syscall = int(number), call
        failure.hint = hint or hints.advice(message.partition(":")[0], call, failure.errno)
    return failure


def forbid_imports() -> None:
    """In a child that changes its root: a module found later would be the container's."""
    sys.meta_path.clear()
    sys.path.clear()
