"""jsontext beside `json`: what it writes, what it reads, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TOP = Path(__file__).resolve().parents[2]

text = st.text(st.characters())  # lone surrogates too
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=20,
)


def stdlib(source: str) -> Any:
    """What `json` makes of it, the names of numbers that are none refused; ValueError: bad."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return repr(json.loads(source, parse_constant=refuse))
    except ValueError:
        return ValueError


def ours(source: str | bytes) -> Any:
    try:
        return repr(jsontext.loads(source))
    except ValueError:
        return ValueError


@given(values, st.sampled_from((None, 2)))
def test_writes_what_json_writes(value: Any, indent: int | None) -> None:
    assert json.loads(jsontext.dumps(value, indent)) == value
    if "\\ud" not in json.dumps(value):  # surrogates: we keep the text encodable
        assert jsontext.dumps(value, indent) == json.dumps(value, ensure_ascii=False, indent=indent)


@given(values, st.sampled_from((None, 1, "\t")))
def test_reads_what_json_reads(value: Any, indent: int | str | None) -> None:
    source = json.dumps(value, indent=indent)
    assert ours(source) == ours(source.encode()) == stdlib(source)
    assert ours(source) is not ValueError


@given(values, st.data())
def test_refuses_what_json_refuses(value: Any, data: st.DataObject) -> None:
    source = json.dumps(value)
    at = data.draw(st.integers(0, len(source)))
    gone = data.draw(st.integers(0, 3))
    new = data.draw(st.text(st.sampled_from('{}[]",:\\u0e-+. \t\n\x00\x0bNaItrue١é'), max_size=3))
    source = source[:at] + new + source[at + gone :]
    assert ours(source) == stdlib(source)


@pytest.mark.parametrize(
    "source",
    [
        "", " ", "{", "[", '"', '"\\', '"\\u12', '{"a"', '{"a":', '{"a":1,}', "[1,]", "{1:2}",
        "{'a': 1}", "NaN", "-Infinity", '{"a": Infinity}', "nul", "01", "1.", ".5", "+1", "1e",
        "--1", "1 2", "{} {}", "[]x", '"a\nb"', '"\x01"', "\ufeff{}", "\xa01", "\x0b1", "1\x0c",
        "[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "0x10", "1_000", "/* */ 1",
    ],
)  # fmt: skip
def test_malformed_text_is_a_value_error(source: str) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(source)


@pytest.mark.parametrize("source", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b""])
def test_bytes_that_are_no_utf8_text_are_a_value_error(source: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(source)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), [float("nan")]])
def test_what_is_no_number_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        jsontext.dumps(value)


def test_the_last_of_equal_keys_counts() -> None:
    assert jsontext.loads('{"a": 1, "b": 2, "a": [3]}') == {"a": [3], "b": 2}


def test_the_error_says_where() -> None:
    with pytest.raises(ValueError, match="character 4"):
        jsontext.loads("[1, x]")
    with pytest.raises(ValueError, match="more than one JSON value"):
        jsontext.loads("1 1")


def test_json_is_imported_neither_to_read_nor_to_write() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r}); from minicontainer import jsontext; "
        'jsontext.loads(jsontext.dumps({"a": ["é\\n", 1.5]})); print("json" in sys.modules)'
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert answer.stdout == "False\n"
