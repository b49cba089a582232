"""What a failure looks like: a sentence on standard error and an exit code."""

from __future__ import annotations

from minicontainer import steps
from minicontainer.cli import output
from minicontainer.cli.containers import SomeFailed
from minicontainer.cli.options import BadCommandLine, Refusal, WrongArguments
from minicontainer.errors import (
    CleanupError,
    CommandNotFound,
    CommandNotInvocable,
    Error,
    UsageError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Command


def fail(failure: BaseException, command: Command, *, debug: bool = False) -> int:
    """Tell the user about `failure` of `command`; the exit code."""
    if isinstance(failure, KeyboardInterrupt):
        return 128 + 2
    causes: list[BaseException] = [failure]
    if isinstance(failure, SomeFailed):
        causes = list(failure.causes)
    for cause in causes:
        tell(cause, command, debug=debug)
    return exit_code(failure, command)


def tell(failure: BaseException, command: Command, *, debug: bool = False) -> None:
    """Print `failure` as `Error: ...`, and what to do about it as `Hint: ...`."""
    if isinstance(failure, OSError):
        failure = _named(failure, command)
    if isinstance(failure, Error):
        causes = failure.causes if isinstance(failure, CleanupError) else []
        output.message(f"Error: {'; '.join(map(str, (failure, *causes)))}")
        if failure.hint:
            output.message(f"Hint: {failure.hint}")
        if isinstance(failure, BadCommandLine):
            output.message(f"Usage: {command.usage}")
    else:
        advice = "" if debug else ", run with --debug"
        output.message(f"Error: internal error: {type(failure).__name__}: {failure}{advice}")
    if debug:
        _chain(failure)


def exit_code(failure: BaseException, command: Command) -> int:
    """The code of INTERFACES A.2 for what `command` raised."""
    if isinstance(failure, (Refusal, WrongArguments, SomeFailed)):
        return 1
    if isinstance(failure, (CommandNotFound, CommandNotInvocable)) and command.own_status:
        return failure.exit_code
    if isinstance(failure, UsageError):
        return failure.exit_code  # 125, but for exec 126 where the container decides
    if not isinstance(failure, (Error, OSError)):
        return 125
    return command.failure_code


def _named(failure: OSError, command: Command) -> BaseException:
    """The error for a system call that failed outside of any step."""
    named = steps.kernel_error(command.name or "minicontainer", failure)
    named.__cause__ = failure
    return named


def _chain(failure: BaseException) -> None:
    """The traceback of `failure` and of what caused it."""
    import traceback

    kind, trace = type(failure), failure.__traceback__
    for text in traceback.format_exception(kind, failure, trace):
        for line in text.rstrip("\n").split("\n"):
            output.message(line)
