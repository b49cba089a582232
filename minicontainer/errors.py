"""The exceptions of the whole program, each with the exit code a user sees.

    Error                 125  what was attempted, and why it failed
    ├─ UsageError         125  a bad flag, value or combination
    ├─ NotFound             1  no such container, image, volume
    ├─ Conflict             1  the name or object is taken or in use
    ├─ InvalidState         1  the container is not in the state the verb needs
    ├─ SpecError          125  a JSON pointer into config.json, and the reason
    ├─ ImageError         125  an image or layer that is refused
    │  ├─ DigestMismatch  125  the bytes are not those that were asked for
    │  └─ UnsupportedMedia 125 a media type, schema or compression that is not read
    ├─ RegistryError      125  a registry refused or failed: the request, status and code
    ├─ KernelError        125  a system call failed: the attempt, the call, the errno
    │  └─ SnapshotError   125  the host refuses an overlay; a copy will do
    ├─ CommandNotInvocable 126 the command exists and cannot be executed
    ├─ CommandNotFound    127  there is no such command in the container
    └─ CleanupError       125  several causes, all of them kept

`cli` alone turns these into text and an exit code; no other module prints or exits.
"""

from __future__ import annotations


class Error(Exception):
    """Something was attempted and failed.

    `str(error)` is one line for the user; `hint` is what to do about it, or None;
    `exit_code` is what the command ends with unless its verb says otherwise.
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(Error):
    """A flag, value or combination of them that cannot be meant."""


class NotFound(Error):
    """The object that was named does not exist."""

    exit_code = 1


class Conflict(Error):
    """The name is taken, or the object is in use."""

    exit_code = 1


class InvalidState(Error):
    """The container is not in a state that allows the verb."""

    exit_code = 1


class SpecError(Error):
    """`config.json` asks for something impossible; the message begins with a JSON pointer."""


class ImageError(Error):
    """An image, layer or archive is refused."""


class DigestMismatch(ImageError):
    """Bytes whose digest or size is not the one they were asked for by."""


class UnsupportedMedia(ImageError):
    """Content of a kind that is not read here; the message names the kind."""


class RegistryError(Error):
    """A registry refused a request or failed at it.

    `method`, `url`, `status` (0: no answer came) and the registry's own `code` are kept.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        url: str = "",
        status: int = 0,
        code: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.url = url
        self.status = status
        self.code = code


class KernelError(Error):
    """A system call failed. `errno` and `syscall` are kept for those who can handle it."""

    def __init__(
        self, message: str, *, errno: int = 0, syscall: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.syscall = syscall


class SnapshotError(KernelError):
    """The host refuses to mount the container's overlay; its files can be copied instead."""


class CommandNotInvocable(Error):
    """The container's command exists but cannot be executed."""

    exit_code = 126


class CommandNotFound(Error):
    """The container has no such command."""

    exit_code = 127


class CleanupError(Error):
    """Taking something down failed in several places; `causes` has them all, in order."""

    def __init__(self, message: str, causes: list[BaseException]) -> None:
        super().__init__(message)
        self.causes = causes
