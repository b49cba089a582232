"""`step`: the sentence that names what is being attempted.

The same sentence is the beginning of the error text when the attempt fails and the heading
of `--explain`, so the two cannot diverge.  A step turns an `OSError` of the door `kernel`
into one `KernelError`: *attempt: call(arguments): text (ERRNO)*, with a hint where we have one.
Nested steps: the innermost one that sees the `OSError` names it.
"""

from __future__ import annotations

import errno
import os

from minicontainer.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# trace.enable() puts a function here; it is called with each step's sentence.
listener: Callable[[str], None] | None = None

# The command line puts a function here; it is called with each warning for the user.
warner: Callable[[str], None] | None = None

# Which process speaks in a trace: the forked child says "init", a monitor "monitor".
role = "engine"
CHILDREN = ("init", "stage")


class step:  # noqa: N801 - used as a statement: `with step("mount %s", target):`
    """Name the attempt made by the block; `arguments` are formatted only when needed."""

    __slots__ = ("arguments", "sentence")

    def __init__(self, sentence: str, *arguments: object) -> None:
        self.sentence = sentence
        self.arguments = arguments

    def __str__(self) -> str:
        return self.sentence % self.arguments if self.arguments else self.sentence

    def __enter__(self) -> None:
        if listener is not None:
            listener(str(self))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(failure, OSError):
            raise kernel_error(str(self), failure) from failure


def warn(sentence: str) -> None:
    """Tell the user something that does not stop the command."""
    if warner is not None:
        warner(sentence)


def errno_text(number: int) -> str:
    """The kernel's words for `number` as engines match them: `permission denied (EACCES)`."""
    text = os.strerror(number)
    name = errno.errorcode.get(number, str(number))
    return f"{text[:1].lower()}{text[1:]} ({name})"


def kernel_error(attempt: str, failure: OSError) -> KernelError:
    """The one-line error for an attempt that ended in `failure`."""
    number = failure.errno or 0
    call = getattr(failure, "call", "")
    detail = getattr(failure, "detail", "")
    if not call and failure.filename is not None:
        call = os.fsdecode(failure.filename) if not isinstance(failure.filename, int) else ""
    reason = errno_text(number) if number else str(failure)
    where = f"{call}: " if call else ""
    return KernelError(
        f"{attempt}: {where}{reason}{f': {detail}' if detail else ''}",
        errno=number,
        syscall=call.partition("(")[0],
        hint=_advice(attempt, call, number),
    )


def _advice(attempt: str, call: str, number: int) -> str | None:
    """A hint, but not in the container's children: they import nothing; their parent adds it."""
    if role in CHILDREN:
        return None
    from minicontainer import hints

    return hints.advice(attempt, call, number)
