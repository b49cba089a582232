"""image.compression: the same bytes come out however they are packed; damage and bombs do not."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.errors import ImageError, UnsupportedMedia
from minicontainer.image import compression
from tests.unit.test_image_tar import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

needs_zstd = pytest.mark.skipif(
    not shutil.which("zstd") and sys.version_info < (3, 14), reason="needs zstd"
)
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() + b"text " * 9 for number in range(20000))


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstd,
}
PACKED = [pytest.param(name, marks=needs_zstd) if name == "zstd" else name for name in PACKERS]


def inflate(data: bytes, piece: int = 5000) -> bytes:
    with compression.Stream(Source(data, piece).read) as stream:
        parts = []
        while part := stream.read():
            parts.append(part)
        assert stream.consumed == len(data)
        return b"".join(parts)


@pytest.mark.parametrize("name", PACKED)
def test_what_was_packed_comes_out_with_its_digest(name: str) -> None:
    packed = PACKERS[name](DATA)
    with compression.Stream(Source(packed, 100_000).read, digest=True) as stream:
        assert stream.kind == name
        assert stream.first_bytes == packed[:512]
        with compression.ReadAhead(stream.read) as ahead:
            parts = []
            while part := ahead.read(1000):
                assert len(part) <= 1000
                parts.append(part)
            assert ahead.read() == b""
    assert b"".join(parts) == DATA
    assert stream.digest() == f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.mark.parametrize("name", PACKED[1:])
def test_members_in_a_row_are_one_stream(name: str) -> None:
    packed = b"".join(PACKERS[name](part) for part in (DATA[:100], b"", DATA[100:]))
    assert inflate(packed) == DATA
    assert inflate(packed, 1) == DATA if len(packed) < 1000 else True


def test_zeros_after_gzip_are_padding_and_other_bytes_are_refused() -> None:
    packed = gzip.compress(b"x")
    assert inflate(packed + bytes(5000), 7) == b"x"
    with pytest.raises(ImageError, match="followed by something else"):
        inflate(packed + b"\0\0garbage")


@pytest.mark.parametrize("name", PACKED[1:])
def test_cut_off_data_is_an_error(name: str) -> None:
    packed = PACKERS[name](DATA)
    for length in (len(packed) - 1, len(packed) // 2, 30):
        with pytest.raises(ImageError, match=r"ends in the middle|damaged"):
            inflate(packed[:length])


@pytest.mark.parametrize("name", PACKED[1:])
def test_damaged_data_is_an_error(name: str) -> None:
    packed = bytearray(PACKERS[name](DATA))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(ImageError):
        inflate(bytes(packed))


@needs_zstd
def test_skippable_frames_of_zstd_give_nothing() -> None:
    skippable = b"\x5a\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"whatever!"
    assert inflate(skippable + zstd(b"content") + skippable) == b"content"


def test_bomb_is_stopped() -> None:
    once = gzip.compress(bytes(64 << 20), 9)
    with compression.Stream(Source(once, 1 << 20).read) as stream:
        while stream.read():  # just below the ratio
            pass
    raw = lzma.compress(bytes(256 << 20), preset=1)
    with compression.Stream(Source(raw, 1 << 20).read) as stream:
        with pytest.raises(ImageError, match="bomb"):
            while stream.read():
                pass
        assert stream.produced < 200 << 20


def test_missing_zstd_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("this Python has zstd")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedMedia, match="zstd data cannot be read") as caught:
        compression.Stream(Source(b"\x28\xb5\x2f\xfd" + bytes(20)).read)
    assert "install" in str(caught.value.hint)


@needs_zstd
def test_program_ends_when_the_stream_is_closed_early() -> None:
    with compression.Stream(Source(zstd(DATA * 20), 1 << 16).read) as stream:
        assert stream.read(10)
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "comm="], stdout=subprocess.PIPE
    )
    assert b"zstd" not in children.stdout


def test_read_ahead_hands_on_failures_and_ends_its_thread() -> None:
    before = threading.active_count()

    def read() -> bytes:
        raise OSError(5, "broken")

    with compression.ReadAhead(read) as ahead:
        for _ in range(2):
            with pytest.raises(OSError, match="broken"):
                ahead.read()
    with compression.ReadAhead(lambda: b"endless") as ahead:
        assert ahead.read(3) == b"end"
    time.sleep(0.01)
    assert threading.active_count() == before


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["gzip", "bzip2", "xz"]), st.data())
def test_whatever_comes_only_image_errors_come_out(
    content: bytes, name: str, data: st.DataObject
) -> None:
    packed = bytearray(PACKERS[name](content))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        inflate(bytes(packed), data.draw(st.integers(1, 40)))
    except ImageError:
        pass
