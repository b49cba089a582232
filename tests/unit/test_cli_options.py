"""cli/options: the grammar of flags, its errors, and the documents made of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import options
from minicontainer.cli.options import BadCommandLine, Command, Option, WrongArguments, flag


def number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a number; accepted from 0 to 9") from None


def command(**given: object) -> Command:
    settings: dict[str, object] = {
        "perform": lambda paths, flags, arguments: 0,
        "later": {"--gone": "", "-p": "-p needs a bridge"},
    }
    settings.update(given)
    return Command(
        "verb",
        "[OPTIONS] THING...",
        "Do it",
        (
            flag("-d, --detach", "background"),
            flag("-i, --interactive", "stdin"),
            flag("-t, --tty", "terminal"),
            flag("--proxy", "signals", default=True),
            Option("-m, --memory", number, "limit", "SIZE"),
            Option("-e, --env", str, "variable", "K=V", repeat=True),
            Option("-v, --volume", str, "volume", "V", repeat=True, key="mounts"),
            Option("--tmpfs", str, "tmpfs", "V", repeat=True, key="mounts"),
            Option("--timeout, --time", number, "seconds", "N", default=10),
        ),
        **settings,  # type: ignore[arg-type]
    )


def parse(*words: str, **given: object) -> tuple[options.Values, list[str]]:
    return options.parse(command(**given), words)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--memory", "5"], "memory", 5),
        (["--memory=5"], "memory", 5),
        (["-m", "5"], "memory", 5),
        (["-m5"], "memory", 5),
        (["-m=5"], "memory", 5),
        (["-dm5"], "memory", 5),
        (["-dim", "5"], "memory", 5),
        (["-m", "-5"], "memory", -5),
        (["-m1", "-m2"], "memory", 2),
        (["--detach"], "detach", True),
        (["--detach=false"], "detach", False),
        (["--proxy=0"], "proxy", False),
        (["-d=false"], "detach", False),
        (["-dit"], "tty", True),
        (["-it", "-d"], "interactive", True),
        (["-itd=false"], "detach", False),
        (["-e", "A=1", "--env=B=2", "-eC"], "env", ["A=1", "B=2", "C"]),
        (["-v", "a", "--tmpfs", "b", "-vc"], "mounts", ["a", "b", "c"]),
        (["--time", "3"], "timeout", 3),
        ([], "timeout", 10),
        ([], "memory", None),
        ([], "env", []),
        ([], "proxy", True),
        (["--env="], "env", [""]),
    ],
)
def test_flags_take_their_values_in_every_spelling(
    words: list[str], key: str, value: object
) -> None:
    assert parse(*words)[0][key] == value


def test_flags_and_arguments_mix_until_two_dashes() -> None:
    values, arguments = parse("a", "-d", "b", "--", "-i", "--", "c")
    assert values["detach"]
    assert not values["interactive"]
    assert arguments == ["a", "b", "-i", "--", "c"]


def test_first_argument_ends_the_flags_where_asked() -> None:
    values, arguments = parse("-d", "sh", "-i", "--", "--memory=x", flags_first=True)
    assert values["detach"]
    assert not values["interactive"]
    assert arguments == ["sh", "-i", "--", "--memory=x"]


def test_two_dashes_before_the_command_belong_to_us() -> None:
    assert parse("-d", "--", "-i", flags_first=True)[1] == ["-i"]


def test_a_dash_alone_is_an_argument() -> None:
    assert parse("-", "-d")[1] == ["-"]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--memry", "5"], "unknown flag: --memry", "did you mean --memory?"),
        (["--deatch"], "unknown flag: --deatch", "did you mean --detach?"),
        (["--xyzzy=1"], "unknown flag: --xyzzy", "`minicontainer verb --help` lists the flags"),
        (["--mem", "5"], "unknown flag: --mem", "`minicontainer verb --help` lists the flags"),
        (["-x"], "unknown shorthand flag: 'x' in -x", None),
        (["-dxi"], "unknown shorthand flag: 'x' in -dxi", None),
        (["--gone"], "--gone: not supported yet", None),
        (["--gone=1"], "--gone: not supported yet", None),
        (["-p", "80"], "-p needs a bridge", None),
        (["-dp80"], "-p needs a bridge", None),
        (["--memory"], "flag needs an argument: --memory", None),
        (["-dm"], "flag needs an argument: -m", None),
        (
            ["--memory", "x"],
            'invalid argument "x" for "-m, --memory" flag: expected a number; accepted from 0 to 9',
            None,
        ),
        (
            ["--detach=perhaps"],
            'invalid argument "perhaps" for "-d, --detach" flag: expected true or false',
            None,
        ),
    ],
)
def test_bad_flags_are_named(words: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(BadCommandLine) as caught:
        parse(*words)
    assert str(caught.value) == message
    if hint:
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("minimum", "maximum", "count", "words"),
    [
        (1, -1, 0, "requires at least 1 argument"),
        (2, -1, 1, "requires at least 2 arguments"),
        (0, 0, 1, "requires no arguments"),
        (2, 2, 3, "requires exactly 2 arguments"),
        (1, 2, 3, "requires at most 2 arguments"),
    ],
)
def test_arguments_are_counted(minimum: int, maximum: int, count: int, words: str) -> None:
    with pytest.raises(WrongArguments, match=words) as caught:
        parse(*["a"] * count, minimum=minimum, maximum=maximum)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-dh", "--nonsense"], ["--help", "-x"]])
def test_help_needs_nothing_else(words: list[str]) -> None:
    assert parse(*words, minimum=3)[0]["help"]


def test_help_short_form_yields_to_a_flag_of_the_verb() -> None:
    verb = Command("v", "", "", (Option("-h, --hostname", str, "", "NAME"),), perform=lambda *_: 0)
    values, _ = options.parse(verb, ["-h", "box"])
    assert values["hostname"] == "box"
    assert not values["help"]


def test_common_flags_are_taken_by_every_verb() -> None:
    values, _ = parse("-D", "--trace=/t", "--explain")
    assert (values["debug"], values["trace"], values["explain"]) == (True, "/t", True)
    assert parse("--trace")[0]["trace"] == ""
    assert parse()[0]["trace"] is None


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        values, arguments = parse(*words)
    except BadCommandLine as failure:
        assert str(failure)
    else:
        assert values["help"] or len(arguments) <= len(words)


@given(st.lists(st.text(min_size=1).filter(lambda word: not word.startswith("-"))))
def test_command_after_the_flags_is_left_as_it_is(words: list[str]) -> None:
    tail = [*words, "-d", "--unknown", "--"] if words else []
    assert parse("-it", *tail, flags_first=True)[1] == tail


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_edits_is_a_distance(first: str, second: str, third: str) -> None:
    assert options.edits(first, first) == 0
    assert options.edits(first, second) == options.edits(second, first)
    assert (options.edits(first, second) == 0) == (first == second)
    assert abs(len(first) - len(second)) <= options.edits(first, second)
    assert options.edits(first, second) <= max(len(first), len(second))
    # Swaps count one, so the triangle holds up to a factor.
    assert options.edits(first, third) <= 2 * (
        options.edits(first, second) + options.edits(second, third)
    )


def test_edits_counts_a_swap_as_one() -> None:
    assert options.edits("--rootsf", "--rootfs") == 1


def test_document_is_a_table_in_markdown() -> None:
    text = options.document(command().options)
    lines = text.splitlines()
    assert lines[:2] == ["| flag | meaning |", "|---|---|"]
    assert "| `-m, --memory SIZE` | limit |" in lines
    assert "| `--proxy` | signals (default true) |" in lines
    assert "| `--timeout, --time N` | seconds (default 10) |" in lines
    assert len(lines) == 2 + len(command().options)


def test_document_escapes_bars() -> None:
    option = Option("--mode", str, "a|b", "A|B")
    assert r"| `--mode A\|B` | a\|b |" in options.document([option])
