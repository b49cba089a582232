"""From a command line to an exit code.

`main` reads the global flags and the verb, imports that verb's module and no other, and turns what
it raises into a sentence and a code.  This package is the only one that prints for the user or ends
the process.  Each verb is a module here with `COMMANDS`, its table of options, and a function that
gets the paths, the values and the arguments.
"""

from __future__ import annotations

import gc
import os
import sys

from minicontainer import __version__, steps
from minicontainer.cli import options, output, roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from minicontainer.cli.options import Command, Values
    from minicontainer.paths import Paths

# The verbs, in the order of `help`, and the module that has each.
VERBS = {
    "run": "run", "create": "run", "start": "start", "stop": "stop", "restart": "stop",
    "kill": "kill", "wait": "wait", "pause": "pause", "unpause": "pause", "rename": "rename",
    "update": "update", "rm": "rm",
    "ps": "ps", "logs": "logs", "inspect": "inspect", "top": "top", "stats": "stats",
    "port": "port", "diff": "diff",
    "exec": "exec", "attach": "attach", "cp": "cp", "export": "export",
    "images": "images", "pull": "pull", "rmi": "rmi", "tag": "rmi", "history": "history",
    "import": "archives", "load": "archives", "save": "archives",
    "login": "login", "logout": "login",
    "prune": "prune", "info": "info", "version": "version", "help": "help",
}  # fmt: skip

# Places kept for verbs to come; `oci` is also what the program is under the name minicontainer-oci.
LATER = (
    "oci", "push", "commit", "build", "search", "network", "volume", "events", "spec", "completion",
)  # fmt: skip
OCI_NAME = "minicontainer-oci"

_OF_IMAGES = (
    "images", "pull", "rmi", "tag", "history", "import", "load", "save", "login", "logout",
)  # fmt: skip
# The two-word spellings: noun -> word -> verb. Other words are verbs of the noun as they are.
NOUNS = {
    "container": {"ls": "ps", "list": "ps", "ps": "ps", "remove": "rm"},
    "image": {"ls": "images", "list": "images", "rm": "rmi", "remove": "rmi"},
    "system": {},
}
NOUN_VERBS = {
    "container": frozenset(
        verb for verb in VERBS if verb not in ("info", "version", "help") and verb not in _OF_IMAGES
    ),
    "image": frozenset(
        ("history", "import", "inspect", "load", "prune", "pull", "push", "save", "tag")
    ),
    "system": frozenset(("info", "prune", "events")),
}


def _no_verb(paths: Paths, values: Values, arguments: list[str]) -> int:
    raise AssertionError("the global flags are no verb")


GLOBAL = options.Command(
    "",
    "[GLOBAL OPTIONS] COMMAND [ARG...]",
    "Run containers.",
    (
        options.Option("--root", str, "directory for what survives a reboot", "DIR"),
        options.Option("--runroot", str, "directory for what does not", "DIR"),
        options.flag("-v, --version", "print the version"),
    ),
    perform=_no_verb,
    flags_first=True,
    later={"--config": ""},
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Do what `argv` (the program's name first, by default `sys.argv`) says; end the process.

    Leaving by `os._exit` saves the interpreter's own taking down, a millisecond.
    """
    # A start makes 20,000 objects and hardly a cycle: looking for some at the usual 700 costs 1 ms.
    gc.set_threshold(50_000)
    _open_standard_descriptors()
    code = dispatch(sys.argv if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    os._exit(code)


def dispatch(argv: Sequence[str]) -> int:
    """The exit code after doing what `argv` says; never raises."""
    command = GLOBAL
    debug = False
    steps.warner = output.warning
    try:
        flags, words = _global_flags(argv)
        debug = flags["debug"]
        if flags["version"]:
            output.line(f"minicontainer version {__version__}")
            return 0
        command, words = find(["help"] if flags["help"] else words or ["help"])
        values, arguments = options.parse(command, words)
        if values["help"]:
            return _help(command)
        debug = debug or values["debug"]
        _narrate(flags, values)
        return command.perform(roots.resolve(flags["root"], flags["runroot"]), values, arguments)
    except output.Closed:
        return 128 + 13  # as if SIGPIPE had ended us
    except BaseException as failure:
        from minicontainer.cli import report

        return report.fail(failure, command, debug=debug)


def _global_flags(argv: Sequence[str]) -> tuple[Values, list[str]]:
    if argv and os.path.basename(argv[0]) == OCI_NAME:
        return options.parse(GLOBAL, ["oci", *argv[1:]])
    return options.parse(GLOBAL, argv[1:])


def find(words: list[str]) -> tuple[Command, list[str]]:
    """The command that `words` begin with, its module imported, and the words after it."""
    verb, rest = words[0], words[1:]
    if verb in NOUNS and rest and not rest[0].startswith("-"):
        noun, word, rest = verb, rest[0], rest[1:]
        verb = NOUNS[noun].get(word, word)
        if word not in NOUNS[noun] and word not in NOUN_VERBS[noun]:
            raise _unknown(f"{noun} {word}", [*NOUNS[noun], *NOUN_VERBS[noun]], word)
        if verb in ("inspect", "prune") and noun != "system":
            rest = ["--type", noun, *rest]
    if verb in LATER:
        raise options.Refusal(f"{verb}: {options.NOT_YET}")
    if verb not in VERBS:
        raise _unknown(verb, [*VERBS, *LATER, *NOUNS], verb)
    module = __import__(f"minicontainer.cli.{VERBS[verb]}", fromlist=["COMMANDS"])
    for command in module.COMMANDS:
        if command.name == verb:
            return command, rest
    raise AssertionError(f"{module.__name__} lacks {verb}")


def _unknown(shown: str, known: list[str], word: str) -> options.Refusal:
    near = options.nearest(word, known)
    return options.Refusal(
        f"unknown command: {shown}",
        hint=f"did you mean {near}?" if near else "`minicontainer help` lists the commands",
    )


def _help(command: Command) -> int:
    from minicontainer.cli import help as help_texts

    return help_texts.show(command)


def _narrate(flags: Values, values: Values) -> None:
    """Let the door tell what passes through it, if that was asked before or after the verb."""
    target = flags["trace"] if values["trace"] is None else values["trace"]
    explain = flags["explain"] or values["explain"]
    if target is not None or explain:
        from minicontainer import trace

        with steps.step("write the trace to %s", target or "standard error"):
            write = trace.writer(target or None)
        trace.enable(write, explain=explain)


def _open_standard_descriptors() -> None:
    """Put /dev/null where descriptor 0, 1 or 2 is closed, so that no file of ours lands there."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
