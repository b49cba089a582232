"""The protocol between a monitor and its clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import frames

KINDS = st.sampled_from([frames.STDIN, frames.STDIN_EOF, frames.STDOUT, frames.EXIT, 0, 255])


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300))), st.lists(st.integers(0, 5000)))
def test_frames_come_back_however_they_are_cut(
    sent: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(frames.encode(*frame) for frame in sent)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    decoder = frames.Decoder()
    got = [
        frame for start, end in zip(places, places[1:]) for frame in decoder.feed(data[start:end])
    ]
    assert got == sent


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_are_frames_or_a_value_error(data: bytes) -> None:
    decoder = frames.Decoder()
    try:
        found = decoder.feed(data)
    except ValueError:
        return
    assert sum(5 + len(payload) for _, payload in found) <= len(data)


def test_too_long_frame_is_refused_by_its_header() -> None:
    header = frames.encode(frames.STDIN)[:1] + (frames.LONGEST_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(ValueError, match="bytes"):
        frames.Decoder().feed(header)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_size_survives(rows: int, columns: int) -> None:
    assert frames.parse_resize(frames.resize(rows, columns)) == (rows, columns)


@given(st.integers(-(2**31), 2**31 - 1))
def test_exit_code_survives(code: int) -> None:
    assert frames.parse_exit_code(frames.exit_code(code)) == code


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0" * 5])
def test_payload_of_a_wrong_length_is_refused(payload: bytes) -> None:
    for parse in (frames.parse_resize, frames.parse_exit_code, frames.parse_signal):
        with pytest.raises(ValueError, match="of"):
            parse(payload)
