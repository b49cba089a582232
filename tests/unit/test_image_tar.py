"""image.tar: what other programs write is read alike; what is hostile is refused cheaply."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.errors import ImageError
from minicontainer.image import tar
from tests.support import images

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class Source:
    """Bytes given out in small, odd pieces."""

    def __init__(self, data: bytes, piece: int = 777) -> None:
        self._data, self._at, self._piece = data, 0, piece

    def read(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + min(size, self._piece)]
        self._at += len(piece)
        return piece


def read(data: bytes, limits: tar.Limits = tar.LIMITS) -> list[tuple[tar.Member, bytes]]:
    reader = tar.Reader(Source(data).read, limits)
    found = []
    while (member := reader.next()) is not None:
        parts = []
        while piece := reader.take(100):
            parts.append(piece)
        found.append((member, b"".join(parts)))
    reader.drain()
    return found


name = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]),
    min_size=1,
    max_size=180,
).filter(lambda text: text.strip("/") == text and len(text.encode()) < 250)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(name, st.binary(max_size=1500)), max_size=5),
    st.sampled_from(FORMATS[1:]),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**31), 2**40),
)
def test_reads_what_tarfile_writes(
    files: list[tuple[str, bytes]], form: int, owner: int, moment: int
) -> None:
    members = [images.member(one, data, uid=owner, mtime=moment) for one, data in files]
    found = read(images.tar(*members, form=form))
    assert [(one.name.decode(), data) for one, data in found] == files
    for one, _ in found:
        assert (one.uid, one.mtime, one.kind) == (owner, moment * 10**9, tar.FILE)


@pytest.mark.parametrize("form", FORMATS)
def test_kinds_links_and_devices(form: int) -> None:
    data = images.tar(
        images.directory("d/"),
        images.symlink("s", "t" * 100),
        images.link("l", "d/f"),
        images.member("c", kind="character", devmajor=5, devminor=1),
        images.member("b", kind="block", devmajor=259, devminor=70000),
        images.member("p", kind="fifo"),
        images.member("x" * 90 + "/" + "y" * 90, b"content"),
        form=form,
    )
    found = read(data)
    assert [one.kind for one, _ in found] == [b"5", b"2", b"1", b"3", b"4", b"6", b"0"]
    assert found[1][0].link == b"t" * 100
    assert (found[3][0].device, found[4][0].device) == ((5, 1), (259, 70000))
    assert found[6][0].name == b"x" * 90 + b"/" + b"y" * 90
    assert found[6][1] == b"content"


def test_pax_times_are_exact_and_attributes_binary() -> None:
    info, _ = images.member("f", mtime=0)
    info.pax_headers = {"mtime": "-1.000000001"}
    attribute = b"\x01\x00\x00\x02\xff=\n\x00 end"
    record = b" SCHILY.xattr.security.capability=" + attribute + b"\n"
    records = str(len(record) + 2).encode() + record
    extended = tarfile.TarInfo("x")
    extended.type, extended.size = tarfile.XHDTYPE, len(records)
    found = read(images.tar((extended, records), (images.member("cap")[0], b""), (info, b"")))
    assert found[0][0].xattrs == {"security.capability": attribute}
    assert found[1][0].mtime == -1_000_000_001


def test_global_headers_are_ignored() -> None:
    records = b"13 path=evil\n"
    info = tarfile.TarInfo("g")
    info.type, info.size = tarfile.XGLTYPE, len(records)
    assert [one.name for one, _ in read(images.tar((info, records), images.member("f")))] == [b"f"]


@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")),
    ],
    ids=["gnu", "0.0", "0.1", "1.0"],
)
@pytest.mark.parametrize("pieces", [0, 1, 3, 60])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str], pieces: int) -> None:
    size = 3 << 20
    expected = bytearray(size)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(size)
        for number in range(pieces):
            file.seek(number * 49152)
            file.write(b"%05d" % number * 100)
            expected[number * 49152 : number * 49152 + 500] = b"%05d" % number * 100
    data = subprocess.run(
        ["tar", "-cS", *options, "-f", "-", "-C", str(tmp_path), "sparse"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    ((one, stored),) = read(data)
    assert (one.name, one.size) == (b"sparse", size)
    assert one.sparse is not None
    made = bytearray(size)
    at = 0
    for offset, length in one.sparse:
        made[offset : offset + length] = stored[at : at + length]
        at += length
    assert made == expected
    assert len(stored) < size // 2 + pieces * 4096


def with_checksum(block: bytes) -> bytes:
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def header(**fields: tuple[int, bytes]) -> bytes:
    block = bytearray(images.member("f")[0].tobuf(tarfile.USTAR_FORMAT))
    for at, value in fields.values():
        block[at : at + len(value)] = value
    return with_checksum(bytes(block))


def pax(records: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + header()


END = bytes(1024)
REFUSED = {
    "no archive": b"something else " * 100,
    "wrong checksum": b"g" + images.tar(images.member("f"))[1:],
    "cut in a header": images.tar(images.member("f"))[:300],
    "cut in data": images.tar(images.member("f", b"x" * 1000))[:1000],
    "lone zeros": bytes(512) + images.tar(images.member("f")),
    "negative size": header(size=(124, b"\xff" * 12)) + END,
    "size of 95 bits": header(size=(124, b"\x80" + b"\xff" * 11)) + END,
    "binary flag 0x81": header(size=(124, b"\x81" + b"\0" * 11)) + END,
    "size of eights": header(size=(124, b"88888888888\0")) + END,
    "underscore in a number": header(mode=(100, b"0_0_644\0")) + END,
    "unknown type": header(kind=(156, b"Q")) + END,
    "volume": header(kind=(156, b"M")) + END,
    "no name": header(name=(0, b"\0")) + END,
    "huge special header": header(kind=(156, b"x"), size=(124, b"77777777777\0")) + END,
    "huge long name": header(kind=(156, b"L"), size=(124, b"77777777777\0")) + END,
    "record beyond the header": pax(b"99 path=x\n") + END,
    "record of no length": pax(b" path=x\n") + END,
    "record shorter than its length": pax(b"1 \n") + END,
    "record without equals": pax(b"9 pathxx\n") + END,
    "record of 0": pax(b"0 a=b\n") + END,
    "NUL in a path": pax(b"12 path=a\0b\n") + END,
    "path of 5000": pax(b"5010 path=" + b"x" * 4999 + b"\n") + END,
    "bad time": pax(b"14 mtime=1e9\n\n"[:13] + b"\n") + END,
    "signed uid": pax(b"10 uid=+1\n") + END,
    "sparse backwards": pax(b"29 GNU.sparse.map=100,1,50,1\n" + b"21 GNU.sparse.size=9\n") + END,
    "sparse half a map": pax(b"24 GNU.sparse.map=1,2,3\n") + END,
    "sparse too long": pax(b"22 GNU.sparse.map=0,5\n" + b"21 GNU.sparse.size=2\n") + END,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        read(data)


def test_limits() -> None:
    row = header(kind=(156, b"L"), size=(124, b"00000000002\0")) + b"x\0" + bytes(510)
    with pytest.raises(ImageError, match="in a row"):
        read(row * 101 + header() + END)
    many = images.tar(*(images.member(str(number)) for number in range(11)))
    with pytest.raises(ImageError, match="more than 10 entries"):
        read(many, tar.LIMITS._replace(entries=10))
    with pytest.raises(ImageError, match="larger than 4000 bytes"):
        read(many, tar.LIMITS._replace(bytes=4000))


def test_two_blocks_of_zeros_end_it_and_padding_is_read() -> None:
    data = images.tar(images.member("f")) + bytes(9216)
    source = Source(data, 1 << 20)
    reader = tar.Reader(source.read)
    assert reader.next() is not None
    assert reader.next() is None
    reader.drain()
    assert source.read(10) == b""
    assert read(b"") == []
    assert len(read(images.tar(images.member("f"))[:-1024])) == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_only_image_errors_come_out(data: st.DataObject) -> None:
    block = bytearray(
        images.tar(
            images.member("long" * 60, b"data" * 50, xattrs={"user.a": "b"}),
            images.symlink("s", "t"),
            form=data.draw(st.sampled_from(FORMATS[1:])),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(block) - 1))
        block[at] = data.draw(st.integers(0, 255))
    whole = bytes(block[: data.draw(st.integers(0, len(block)))])
    if data.draw(st.booleans()):  # get past the checksum
        whole = b"".join(
            with_checksum(whole[at : at + 512])
            if whole[at + 257 : at + 262] == b"ustar"
            else whole[at : at + 512]
            for at in range(0, len(whole), 512)
        )
    try:
        read(whole)
    except ImageError:
        pass
