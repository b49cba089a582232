"""Detach keys: how they are spelled, and how they are found in what is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine.caller import DETACH_KEYS, DetachKeys, parse_detach_keys
from minicontainer.errors import UsageError


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (DETACH_KEYS, b"\x10\x11"),
        ("ctrl-a,b", b"\x01b"),
        ("a,B,1", b"aB1"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("CTRL-Z", b"\x1a"),
        ("DEL", b"\x7f"),
        ("", b""),
    ],
)
def test_keys_are_read(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-ab", "ab", "a,", ",", "é", "ctrl-é"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid detach keys"):
        parse_detach_keys(text)


def fed(keys: bytes, *chunks: bytes) -> tuple[bytes, bool]:
    matcher = DetachKeys(keys)
    passed = b""
    for chunk in chunks:
        more, detached = matcher.feed(chunk)
        passed += more
        if detached:
            return passed, True
    return passed, False


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((b"\x10\x11",), (b"", True)),
        ((b"\x10", b"\x11"), (b"", True)),
        ((b"ab\x10\x11cd",), (b"ab", True)),
        ((b"\x10a\x10", b"b"), (b"\x10a\x10b", False)),
        ((b"\x10\x10\x11",), (b"\x10", True)),
        ((b"\x11\x10",), (b"\x11", False)),
    ],
)
def test_default_keys(chunks: tuple[bytes, ...], expected: tuple[bytes, bool]) -> None:
    assert fed(b"\x10\x11", *chunks) == expected


def test_no_keys_pass_everything() -> None:
    assert fed(b"", b"\x10\x11") == (b"\x10\x11", False)


LETTERS = st.binary(max_size=60).map(lambda data: bytes(b"ab"[byte & 1] for byte in data))


@given(LETTERS.filter(bool).map(lambda keys: keys[:5]), st.lists(LETTERS))
def test_keys_are_found_where_they_first_occur(keys: bytes, chunks: list[bytes]) -> None:
    typed = b"".join(chunks)
    passed, detached = fed(keys, *chunks)
    if keys in typed:
        assert (passed, detached) == (typed[: typed.index(keys)], True)
    else:
        assert not detached
        # Only what may still become the keys is held back.
        assert keys.startswith(typed[len(passed) :])
        assert typed.startswith(passed)
