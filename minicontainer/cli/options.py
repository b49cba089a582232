"""The command line of a verb as data: a table of options, read by one small parser.

The grammar is Docker's: `--flag v`, `--flag=v`, `-fv`, `-f v`, `-f=v`; booleans cluster (`-dit`)
and take `=false`; `--` ends the flags; no abbreviations; the last value wins and lists add up.
With `flags_first` the first positional ends the flags, so that the rest is the container's command.
The same table yields the help text and the README's tables; nothing here acts.
"""

from __future__ import annotations

from minicontainer.errors import Error, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from minicontainer.paths import Paths

    Values = dict[str, Any]
    Perform = Callable[[Paths, Values, list[str]], int]

NOT_YET = "not supported yet"


class Refusal(Error):
    """What was asked makes sense but not here; ends with 1 in every verb."""

    exit_code = 1


class BadCommandLine(UsageError):
    """A flag that does not exist or cannot have that value; shown with the verb's usage."""


class WrongArguments(BadCommandLine):
    """Too many or too few positional arguments; ends with 1, as an unknown verb does."""

    exit_code = 1


class Option:
    """A row of a verb's table.

    `flags` are the names as shown, `-m, --memory`; `parse` turns the text into a value or raises
    ValueError with the reason and the accepted range; `bare` is the text meant when the flag stands
    without a value (booleans); `key` names the value, by default the first long name.
    """

    __slots__ = ("bare", "default", "flags", "help", "key", "metavar", "names", "parse", "repeat")

    def __init__(
        self,
        flags: str,
        parse: Callable[[str], Any],
        help: str,
        metavar: str = "",
        *,
        repeat: bool = False,
        default: Any = None,
        bare: str | None = None,
        key: str = "",
    ) -> None:
        self.flags = flags
        self.names = flags.split(", ")
        self.parse = parse
        self.help = help
        self.metavar = metavar
        self.repeat = repeat
        self.default = default
        self.bare = bare
        self.key = key or flags.partition("--")[2].partition(",")[0].replace("-", "_")


class Command:
    """A verb: how it is called, its table, and the function that performs it.

    `minimum` and `maximum` count positional arguments (-1: any number).  `later` has the flags that
    are known and not built yet, each with the sentence to say ("" for the usual one).
    `failure_code` is the exit code of what fails on our side; `own_status` says that the verb ends
    with the status of a command, so 126 and 127 mean what they mean in a shell.
    """

    __slots__ = (
        "failure_code", "flags_first", "later", "maximum", "minimum", "name", "options",
        "own_status", "perform", "summary", "synopsis",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        synopsis: str,
        summary: str,
        options: Sequence[Option] = (),
        *,
        perform: Perform,
        minimum: int = 0,
        maximum: int = -1,
        flags_first: bool = False,
        later: Mapping[str, str] | None = None,
        failure_code: int = 1,
        own_status: bool = False,
    ) -> None:
        self.name = name
        self.synopsis = synopsis
        self.summary = summary
        self.options = options
        self.perform = perform
        self.minimum = minimum
        self.maximum = maximum
        self.flags_first = flags_first
        self.later = later or {}
        self.failure_code = failure_code
        self.own_status = own_status

    @property
    def usage(self) -> str:
        """One line: `minicontainer stop [OPTIONS] CONTAINER...`."""
        return " ".join(filter(None, ("minicontainer", self.name, self.synopsis)))


def boolean(text: str) -> bool:
    """The truth in `text`, in the spellings Docker takes."""
    if text in ("true", "TRUE", "True", "1", "t", "T"):
        return True
    if text in ("false", "FALSE", "False", "0", "f", "F"):
        return False
    raise ValueError("expected true or false")


def flag(flags: str, help: str, *, default: bool = False, key: str = "") -> Option:
    """The row of a boolean."""
    return Option(flags, boolean, help, default=default, bare="true", key=key)


# Understood before the verb and after it.
COMMON = (
    flag("-D, --debug", "show the chain of causes when something fails"),
    Option("--trace", str, "print every system call that acts (to FILE)", "[=FILE]", bare=""),
    flag("--explain", "tell what each step does and why"),
    flag("--help", "show this text"),
)


def parse(command: Command, words: Sequence[str]) -> tuple[Values, list[str]]:
    """The values by key, and the positional arguments, of `words` (the verb not among them).

    `--help` ends the reading at once, with `help` true. Raises BadCommandLine.
    """
    reader = _Reader(command, words)
    positional: list[str] = []
    while reader.words and not reader.values["help"]:
        word = reader.words.pop()
        if word == "--":
            positional += reversed(reader.words)
            break
        if word.startswith("--"):
            reader.long(word)
        elif word.startswith("-") and word != "-":
            reader.short(word)
        else:
            positional.append(word)
            if command.flags_first:
                positional += reversed(reader.words)
                break
    if not reader.values["help"]:
        _check_count(command, len(positional))
    return reader.values, positional


class _Reader:
    """The words not yet read (the next one last), and the values read so far."""

    __slots__ = ("command", "table", "values", "words")

    def __init__(self, command: Command, words: Sequence[str]) -> None:
        self.command = command
        self.words = list(reversed(words))
        self.table = {name: option for option in command.options for name in option.names}
        for option in COMMON:
            for name in option.names:
                self.table.setdefault(name, option)
        self.table.setdefault("-h", self.table["--help"])
        self.values: Values = {
            option.key: [] if option.repeat else option.default for option in self.table.values()
        }

    def long(self, word: str) -> None:
        """Read `--name`, `--name=value` or `--name value`."""
        name, equals, text = word.partition("=")
        option = self.table.get(name)
        if option is None:
            raise _unknown(self.command, self.table, name, word)
        if not equals:
            text = option.bare if option.bare is not None else self.next_word(name)
        store(self.values, option, text)

    def short(self, word: str) -> None:
        """Read a cluster: `-d`, `-dit`, `-m64m`, `-m=64m`, `-m 64m`, `-i=false`."""
        for index in range(1, len(word)):
            name, rest = f"-{word[index]}", word[index + 1 :]
            option = self.table.get(name)
            if option is None:
                raise _unknown(self.command, self.table, name, word)
            if option.bare is not None and not rest.startswith("="):
                store(self.values, option, option.bare)
                continue
            text = rest[rest.startswith("=") :] if rest else self.next_word(name)
            store(self.values, option, text)
            return

    def next_word(self, name: str) -> str:
        if not self.words:
            raise BadCommandLine(f"flag needs an argument: {name}")
        return self.words.pop()


def store(values: Values, option: Option, text: str) -> None:
    """Put what `text` means for `option` into `values`. Raises BadCommandLine."""
    try:
        value = option.parse(text)
    except ValueError as reason:
        message = f'invalid argument "{text}" for "{option.flags}" flag: {reason}'
        raise BadCommandLine(message) from None
    if option.repeat:
        values[option.key].append(value)
    else:
        values[option.key] = value


def _unknown(command: Command, table: Mapping[str, Option], name: str, word: str) -> BadCommandLine:
    if name in command.later:
        return BadCommandLine(command.later[name] or f"{name}: {NOT_YET}")
    near = nearest(name, [*table, *command.later]) if name.startswith("--") else None
    text = (
        f"unknown flag: {name}"
        if name.startswith("--")
        else f"unknown shorthand flag: '{name[1:]}' in {word}"
    )
    where = f"minicontainer {command.name}".rstrip()
    return BadCommandLine(
        text, hint=f"did you mean {near}?" if near else f"`{where} --help` lists the flags"
    )


def _check_count(command: Command, count: int) -> None:
    low, high = command.minimum, command.maximum
    if count >= low and (high < 0 or count <= high):
        return
    if high == 0:
        wanted = "no arguments"
    else:
        number = low if count < low else high
        bound = "exactly" if low == high else "at least" if count < low else "at most"
        wanted = f"{bound} {number} argument{'' if number == 1 else 's'}"
    raise WrongArguments(f'"minicontainer {command.name}" requires {wanted}')


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate with the fewest edits from `word`, or None if none is near."""
    limit = max(1, len(word.lstrip("-")) // 3)
    scored = [(edits(word, candidate), candidate) for candidate in candidates]
    close = [(distance, candidate) for distance, candidate in scored if distance <= limit]
    return min(close)[1] if close else None


def edits(first: str, second: str) -> int:
    """How many insertions, deletions, replacements and swaps turn `first` into `second`."""
    before: list[int] = []
    previous = list(range(len(second) + 1))
    for row, character in enumerate(first, 1):
        current = [row]
        for column, other in enumerate(second, 1):
            best = previous[column - 1] + (character != other)
            best = min(best, previous[column] + 1, current[column - 1] + 1)
            if row > 1 and column > 1 and character == second[column - 2]:
                if first[row - 2] == other:
                    best = min(best, before[column - 2] + 1)
            current.append(best)
        before, previous = previous, current
    return previous[-1]


def rows(table: Iterable[Option]) -> list[tuple[str, str]]:
    """(flags with their value, what they do) for each option, as help shows them."""
    shown = []
    for option in table:
        indent = "" if option.flags.startswith("-") and option.flags[1] != "-" else "    "
        space = "" if option.metavar.startswith("[") or not option.metavar else " "
        default = "" if option.default in (None, False) else f" (default {default_text(option)})"
        shown.append((f"{indent}{option.flags}{space}{option.metavar}", option.help + default))
    return shown


def default_text(option: Option) -> str:
    """The default of `option` as a user would type it."""
    if option.default is True:
        return "true"
    return str(option.default)


def document(table: Iterable[Option]) -> str:
    """The options of `table` as a Markdown table, for the README."""
    lines = ["| flag | meaning |", "|---|---|"]
    for flags, meaning in rows(table):
        cells = (f"`{flags.strip()}`", meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
