"""cli.progress: what a pull looks like on a terminal and off it."""

from __future__ import annotations

import os

import pytest

from minicontainer.cli import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Event = dict[str, Any]


def shown(make: Any, *events: Event, **how: int) -> str:
    """What the events print."""
    reading, writing = os.pipe()
    show = make(writing, **how)
    for event in events:
        show(event)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", newline="") as file:
        return file.read()


def screen(text: str, rows: int) -> list[str]:
    """The lines of a terminal after `text`: newline, return, cursor up and down, erase line."""
    lines, row, column = [""], 0, 0
    at = 0
    while at < len(text):
        if text.startswith("\x1b[", at):
            end = at + 2
            while not text[end].isalpha():
                end += 1
            number = int(text[at + 2 : end] or "1")
            if text[end] == "A":
                assert number < rows, "the cursor cannot leave the screen"
                row -= number
                assert row >= 0
            elif text[end] == "B":
                row += number
            else:
                assert text[at : end + 1] == "\x1b[2K"
                lines[row] = ""
            at = end + 1
            continue
        character = text[at]
        at += 1
        if character == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif character == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column] + character + lines[row][column + 1 :]
            column += 1
    return lines


def event(name: str, status: str, *counts: int) -> Event:
    return {"id": name, "status": status, **dict(zip(("current", "total"), counts))}


PULL = [
    event("latest", "Pulling from library/x"),
    event("aaa", "Pulling fs layer"),
    event("bbb", "Pulling fs layer"),
    event("aaa", "Downloading", 0, 4000),
    event("bbb", "Downloading", 0, 2000),
    event("aaa", "Downloading", 2000, 4000),
    event("bbb", "Downloading", 2000, 2000),
    event("aaa", "Download complete"),
    event("bbb", "Pull complete"),
    event("aaa", "Pull complete"),
    {"status": "Digest: sha256:123"},
]


def test_each_state_is_one_line_off_a_terminal() -> None:
    assert shown(progress.Lines, *PULL).splitlines() == [
        "latest: Pulling from library/x",
        "aaa: Pulling fs layer",
        "bbb: Pulling fs layer",
        "aaa: Downloading",
        "bbb: Downloading",
        "aaa: Download complete",
        "bbb: Pull complete",
        "aaa: Pull complete",
        "Digest: sha256:123",
    ]


def test_each_layer_is_one_line_on_a_terminal() -> None:
    halfway = screen(shown(progress.Bars, *PULL[:6], rows=24, columns=100), 24)
    assert halfway[:2] == [
        "latest: Pulling from library/x",
        f"aaa: Downloading [{'=' * 25}>{' ' * 24}] 2kB/4kB",
    ]
    assert halfway[2] == f"bbb: Downloading [>{' ' * 49}] 0B/2kB"
    assert screen(shown(progress.Bars, *PULL, rows=24, columns=100), 24) == [
        "latest: Pulling from library/x",
        "aaa: Pull complete",
        "bbb: Pull complete",
        "Digest: sha256:123",
        "",
    ]


@pytest.mark.parametrize("columns", [1, 20, 30, 45, 60, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    text = shown(progress.Bars, *PULL[1:9], rows=24, columns=columns)
    assert all(len(line) < max(columns, 20) for line in screen(text, 24))


def test_layers_that_left_the_screen_stay_as_they_were() -> None:
    first = [event(f"layer{number}", "Waiting") for number in range(40)]
    second = [event(f"layer{number}", "Pull complete") for number in range(40)]
    lines = screen(shown(progress.Bars, *first, *second, rows=10, columns=80), 10)
    assert lines[0] == "layer0: Waiting"
    assert lines[39] == "layer39: Pull complete"
    assert sum("Pull complete" in line for line in lines) == 9


def test_words_of_others_cannot_move_the_cursor() -> None:
    for make in (progress.Lines, progress.Bars):
        text = shown(make, {"status": "Status: \x1b[2Jx\ny"})
        assert "\x1b[2J" not in text
        assert text.rstrip() == "Status: \\x1b[2Jx\\ny"


def test_a_pipe_gets_lines() -> None:
    reading, writing = os.pipe()
    try:
        assert isinstance(progress.to(writing), progress.Lines)
    finally:
        os.close(reading)
        os.close(writing)
