"""cli/tables and cli/output: columns, sizes, and text that cannot play tricks on a terminal."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import output, tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def test_columns_are_ten_wide_with_three_spaces_between() -> None:
    text = tables.layout([["CONTAINER ID", "IMAGE", "NAMES"], ["0123456789ab", "x", "web"]])
    assert text == "CONTAINER ID   IMAGE     NAMES\n0123456789ab   x         web\n"


def test_columns_count_cells_not_characters() -> None:
    text = tables.layout([["漢字漢字漢字", "b"], ["e\u0301", "d"]])
    assert text == "漢字漢字漢字   b\ne\u0301              d\n"


def test_rows_end_without_spaces() -> None:
    assert tables.layout([["A", "B"], ["x", ""]]) == "A         B\nx\n"
    assert tables.layout([]) == ""


@given(st.lists(st.lists(st.text(alphabet="abc漢 ", max_size=20), min_size=2, max_size=2)))
def test_second_column_starts_at_one_place(rows: list[list[str]]) -> None:
    lines = tables.layout([*rows, ["HEAD", "|"]]).split("\n")
    start = lines[-2].index("|")
    for (first, second), line in zip(rows, lines):
        shown = first + " " * (start - tables.cells(first)) + second
        assert line == shown.rstrip()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"), (1, "1B"), (999, "999B"), (1000, "1kB"), (328_000, "328kB"),
        (1_980_000, "1.98MB"), (3_240_000, "3.24MB"), (999_499, "999kB"), (999_500, "1MB"),
        (1_000_000_000, "1GB"), (12_345, "12.3kB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert tables.decimal_size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (328 << 10, "328KiB"), (2088763392, "1.945GiB")],
)
def test_memory_counts_by_1024(count: int, text: str) -> None:
    assert tables.binary_size(count) == text


@given(st.integers(0, 1 << 62))
def test_sizes_are_near_the_truth(count: int) -> None:
    for text, factor in ((tables.decimal_size(count), 1000), (tables.binary_size(count), 1024)):
        number = text.rstrip("BkKMGTPEi")
        power = " KMGTPE".index((text[len(number) :].rstrip("iB") or " ").upper())
        assert float(number) < factor
        assert abs(float(number) * factor**power - count) <= max(count * 0.006, 1)


@given(st.text(max_size=40), st.integers(1, 30))
def test_shortened_text_fits(text: str, limit: int) -> None:
    short = tables.shorten(text, limit)
    assert tables.cells(short) <= limit
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


def test_quotes_escape_as_go_does() -> None:
    assert tables.quote('sh -c "a\\b"\n\x1b') == '"sh -c \\"a\\\\b\\"\\n\\x1b"'


@given(st.text())
def test_shown_text_has_no_controls(text: str) -> None:
    shown = output.printable(text, keep="")
    assert shown == text or shown.isprintable()
    assert output.printable(text).replace("\n", "").replace("\t", "").isprintable()


def test_tricks_are_shown_as_escapes() -> None:
    assert output.printable("a\x1b[2Jb\u202ec\udcff\x9b\U000e0001") == (
        r"a\x1b[2Jb\u202ec\xff\x9b\U000e0001"
    )
    assert output.printable("Grüße 漢字\n") == "Grüße 漢字\n"


@given(st.text() | st.binary().map(os.fsdecode))
def test_any_text_can_be_written(text: str) -> None:
    assert isinstance(output.encode(text), bytes)


@given(st.binary())
def test_arguments_come_out_as_they_went_in(data: bytes) -> None:
    assert output.encode(data.decode("utf-8", "surrogateescape")) == data


def test_write_raises_closed_when_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(output.Closed):
            output.write(b"x", writer)
    finally:
        os.close(writer)


def test_write_waits_for_a_slow_reader() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            output.write(b"x" * 1_000_000, writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    count = 0
    while data := os.read(reader, 65536):
        count += len(data)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert count == 1_000_000


ROWS = [
    {"ID": "1", "Name": "a\nb", "Label": lambda key: f"<{key}>"},
    {"ID": "2", "Name": "c", "Label": lambda key: ""},
]
HEADINGS = {"ID": "CONTAINER ID", "Name": "NAMES"}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (None, "CONTAINER ID   NAMES\n1              a\\nb\n2              c\n"),
        ("table", "CONTAINER ID   NAMES\n1              a\\nb\n2              c\n"),
        (r"table {{.Name}}\t{{.ID}}", "NAMES     CONTAINER ID\na\\nb      1\nc         2\n"),
        (r"table {{.ID}}\t{{.Label \"x\"}}".replace('\\"', '"'),
         "CONTAINER ID   x\n1              <x>\n2\n"),
        ("{{.ID}}-{{.Name}}", "1-a\nb\n2-c\n"),
        ("json", '{"ID":"1","Name":"a\\nb"}\n{"ID":"2","Name":"c"}\n'),
        ("raw", "id: 1\n\nid: 2\n\n"),
        ("x", "x\nx\n"),
    ],
)  # fmt: skip
def test_lists_come_in_every_form(
    form: str | None, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows: Any = ROWS
    tables.listing(rows, HEADINGS, ("ID", "Name"), form, (("id", "ID"),))
    assert capfd.readouterr().out == text


def test_empty_table_has_its_headings(capfd: pytest.CaptureFixture[str]) -> None:
    tables.listing([], HEADINGS, ("ID", "Name"), None)
    assert capfd.readouterr().out == "CONTAINER ID   NAMES\n"
