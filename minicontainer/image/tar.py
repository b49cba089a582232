"""Tar streams read header by header: ustar, GNU and PAX with long names, sparse files, attributes.

Reading only decodes and checks; nothing is ever made by it.  Every number has a range and every
header a largest size, so that a hostile stream costs no memory.  Names are bytes, as they came.
Sources: pax(1), tar(5), GNU tar manual "Tar Internals".  Not for: writing (`packing`).

Global PAX headers are skipped, as Docker does: they would let one entry rename all others.
"""

from __future__ import annotations

import zlib

from minicontainer.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
else:
    from minicontainer.tuples import namedtuple

# entries: of one archive; bytes: of the stream; name: of a path; header: bytes of one special
# header; row: how many of those may precede one entry.
Limits = namedtuple("Limits", "entries bytes name header row")
LIMITS = Limits(1_000_000, 1 << 62, 4096, 1 << 20, 100)

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = (bytes([code]) for code in b"0123456")

_BLOCK_BYTES = 512
_ZEROS = bytes(_BLOCK_BYTES)
_PIECE_BYTES = 1 << 18
_LARGEST = (1 << 63) - 1
_GLOBAL, _PAX, _LONG_NAME, _LONG_LINK, _GNU_SPARSE = b"g", (b"x", b"X"), b"L", b"K", b"S"
_FILES = (FILE, b"\0", b"7", _GNU_SPARSE)
_WITHOUT_DATA = (LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO)
_XATTR = b"SCHILY.xattr."
_KINDS = {b"D": "GNU dump directory", b"M": "part of several volumes", b"V": "volume label"}


class Member:
    """One entry of an archive.

    kind: FILE … FIFO; mode: permission bits; link: target of a link; times in nanoseconds; device:
    (major, minor); size: of the file; sparse: its data as [(offset, length)], None if it has no
    holes.
    """

    __slots__ = (
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime",
        "name",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )
    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]
    sparse: list[tuple[int, int]] | None


class Reader:
    """The members of the tar stream that `read` gives, one after the other.

    read: up to so many bytes, b"" at the end.  Raises ImageError for what is no tar archive, is
    damaged, or goes beyond the limits.
    """

    def __init__(self, read: Callable[[int], bytes], limits: Limits = LIMITS) -> None:
        self._read = read
        self._limits = limits
        self._buffer = b""
        self._at = 0
        self._left = self._padding = 0
        self._bytes = 0
        self.entries = 0

    @property
    def position(self) -> int:
        """How many bytes of the stream precede what is read next."""
        return self._bytes - len(self._buffer) + self._at

    def next(self) -> Member | None:
        """The next member, whether or not the data of the one before was taken."""
        records: _Records = []
        long_name = long_link = None
        for _ in range(self._limits.row):
            self.skip()
            block = self._header_block()
            if block is None:
                return None
            kind = block[156:157]
            if kind in _PAX:
                records = _pax_records(self._special(block))
            elif kind == _LONG_NAME:
                long_name = self._special(block).partition(b"\0")[0]
            elif kind == _LONG_LINK:
                long_link = self._special(block).partition(b"\0")[0]
            elif kind == _GLOBAL:
                self._special(block)
            else:
                return self._member(block, records, long_name, long_link)
        raise _refused(f"{self._limits.row} special headers in a row")

    def take(self, most: int = _PIECE_BYTES) -> bytes:
        """Up to `most` bytes of the member's data, b"" when all was taken."""
        if self._left == 0:
            return b""
        if self._at == len(self._buffer):
            self._fill()
        end = min(self._at + self._left, self._at + most, len(self._buffer))
        piece = self._buffer[self._at : end]
        self._at = end
        self._left -= len(piece)
        return piece

    def skip(self) -> None:
        """Pass over what is left of the member's data."""
        rest = self._left + self._padding
        self._left = self._padding = 0
        while rest > len(self._buffer) - self._at:
            rest -= len(self._buffer) - self._at
            self._fill()
        self._at += rest

    def drain(self) -> None:
        """Read the stream to its end, which padding may follow."""
        while self._more():
            pass

    def _more(self) -> bool:
        self._buffer, self._at = self._read(_PIECE_BYTES), 0
        self._bytes += len(self._buffer)
        if self._bytes > self._limits.bytes:
            raise _refused(f"it is larger than {self._limits.bytes} bytes")
        return bool(self._buffer)

    def _fill(self) -> None:
        if not self._more():
            raise ImageError("the tar archive is cut off")

    def _exactly(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._buffer):
            piece = self._buffer[self._at : end]
            self._at = end
            return piece
        parts = [self._buffer[self._at :]]
        size -= len(parts[0])
        while size:
            self._fill()
            parts.append(self._buffer[:size])
            size -= len(parts[-1])
            self._at = len(parts[-1])
        return b"".join(parts)

    def _at_end(self) -> bool:
        return self._at == len(self._buffer) and not self._more()

    def _header_block(self) -> bytes | None:
        """The next header, None at the archive's end: two blocks of zeros, or nothing at all."""
        if self._at_end():
            return None
        block = self._exactly(_BLOCK_BYTES)
        if block == _ZEROS:
            if not self._at_end() and self._exactly(_BLOCK_BYTES) != _ZEROS:
                raise ImageError("the tar archive is damaged: a lone block of zeros")
            return None
        recorded = _number(block[148:156], "checksum")
        plain = _sum(block[:148]) + 8 * 32 + _sum(block[156:334]) + _sum(block[334:])
        # Some old programs added signed characters.
        if recorded != plain and recorded != plain - 256 * sum(byte > 127 for byte in block):
            raise ImageError("this is not a tar archive, or a damaged one: wrong checksum")
        return block

    def _special(self, block: bytes) -> bytes:
        size = _number(block[124:136], "size")
        if not 0 <= size <= self._limits.header:
            raise _refused(f"a special header of {size} bytes")
        data = self._exactly(size)
        self._exactly(-size % _BLOCK_BYTES)
        return data

    def _member(
        self, block: bytes, records: _Records, long_name: bytes | None, long_link: bytes | None
    ) -> Member:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise _refused(f"more than {self._limits.entries} entries")
        member = _decode(block)
        if long_name is not None:
            member.name = long_name
        if long_link is not None:
            member.link = long_link
        kind = block[156:157]
        sparse = _apply_records(member, records) if records else None
        size = member.size
        if kind in _WITHOUT_DATA:
            size = 0
        self._left, self._padding = size, -size % _BLOCK_BYTES
        if kind == _GNU_SPARSE:
            self._padding = self._left = 0
            member.sparse = self._old_sparse_map(block)
            self._left, self._padding = size, -size % _BLOCK_BYTES
            member.size = _number(block[483:495], "size")
        elif sparse is not None and kind in _FILES:
            self._new_sparse_map(member, sparse)
        if member.sparse is not None:
            _check_sparse(member, self._left)
        self._check_names(member)
        return member

    def _check_names(self, member: Member) -> None:
        for name in (member.name, member.link):
            if len(name) >= self._limits.name or b"\0" in name:
                raise _refused(f"a name like {name[:60]!r} of {len(name)} bytes")
        if not member.name:
            raise _refused("an entry without a name")

    def _old_sparse_map(self, block: bytes) -> list[tuple[int, int]]:
        """The map in a GNU header and in the blocks that follow it."""
        found = _old_sparse_entries(block[386:482])
        more = block[482]
        while more:
            block = self._exactly(_BLOCK_BYTES)
            found += _old_sparse_entries(block[:504])
            more = block[504]
            if len(found) * 24 > self._limits.header:
                raise _refused("a sparse file in too many pieces")
        return found

    def _new_sparse_map(self, member: Member, sparse: _Sparse) -> None:
        member.sparse = sparse.map
        member.size = member.size if sparse.size is None else sparse.size
        if sparse.name:
            member.name = sparse.name
        if not sparse.in_data:
            return
        text = b""
        wanted = None
        while wanted is None or text.count(b"\n") < wanted:
            if self._left < _BLOCK_BYTES or len(text) > self._limits.header:
                raise _refused("a sparse file with a map that does not end")
            text += self._exactly(_BLOCK_BYTES)
            self._left -= _BLOCK_BYTES
            if wanted is None and b"\n" in text:
                wanted = 2 * _decimal(text.partition(b"\n")[0]) + 1
        numbers = [_decimal(word) for word in text.split(b"\n")[1:wanted]]
        member.sparse = list(zip(numbers[::2], numbers[1::2]))


# key: (name, value), in order, for sparse maps may be spread over several of one name.
if TYPE_CHECKING:
    _Records = list[tuple[bytes, bytes]]


class _Sparse:
    """What the PAX records of GNU tar say of a sparse file."""

    def __init__(self, records: _Records) -> None:
        values = dict(records)
        self.name = values.get(b"GNU.sparse.name")
        size = values.get(b"GNU.sparse.realsize", values.get(b"GNU.sparse.size"))
        self.size = None if size is None else _decimal(size)
        self.in_data = values.get(b"GNU.sparse.major") == b"1"
        offsets = [_decimal(value) for key, value in records if key == b"GNU.sparse.offset"]
        lengths = [_decimal(value) for key, value in records if key == b"GNU.sparse.numbytes"]
        if b"GNU.sparse.map" in values:
            words = values[b"GNU.sparse.map"].split(b",") if values[b"GNU.sparse.map"] else []
            numbers = [_decimal(word) for word in words]
            offsets, lengths = numbers[::2], numbers[1::2]
        if len(offsets) != len(lengths):
            raise _refused("a sparse file with half a map")
        self.map = list(zip(offsets, lengths))


def _sum(piece: bytes) -> int:
    """The bytes of at most 256 added up: half of Adler-32, a third of the time of `sum`."""
    return (zlib.adler32(piece) & 0xFFFF) - 1


def _decode(block: bytes) -> Member:
    """The member of a plain header."""
    member = Member()
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        # The prefix of star(1) is shorter, two times follow it.
        end = 476 if block[508:512] == b"tar\0" else 500
        name = block[345:end].partition(b"\0")[0] + b"/" + name
    kind = block[156:157]
    member.name = name
    member.kind = FILE if kind in _FILES else kind
    if kind == b"\0" and name.endswith(b"/"):
        member.kind = DIRECTORY
    if member.kind not in _WITHOUT_DATA and member.kind != FILE:
        what = _KINDS.get(kind, f"of type {kind!r}")
        raise _refused(f"{name[:200]!r} is an entry that is not supported ({what})")
    member.mode = _number(block[100:108], "mode") & 0o7777
    member.uid = _number(block[108:116], "owner")
    member.gid = _number(block[116:124], "group")
    member.size = _number(block[124:136], "size")
    if not 0 <= member.size <= _LARGEST:
        raise _refused(f"{name[:200]!r} has an impossible size")
    member.mtime = _number(block[136:148], "time") * 1_000_000_000
    member.link = block[157:257].partition(b"\0")[0]
    member.device = (0, 0)
    if member.kind in (CHARACTER, BLOCK):
        member.device = _number(block[329:337], "device"), _number(block[337:345], "device")
    member.xattrs = {}
    member.sparse = None
    return member


def _number(field: bytes, what: str) -> int:
    """An octal number, or GNU's binary one."""
    text = field[:-1]  # nearly always
    if field[0] & 0x80:
        if field[0] not in (0x80, 0xFF):
            raise _refused(f"a header with an impossible {what}")
        negative = field[0] == 0xFF
        return int.from_bytes(field[1:], "big") - ((1 << 8 * (len(field) - 1)) if negative else 0)
    if not text.isdigit() or field[-1] not in b" \0":
        text = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    try:
        if not text or text.isdigit():
            return int(text or b"0", 8)
    except ValueError:
        pass
    raise _refused(f"a header with an impossible {what}: {text!r}")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > _LARGEST:
        raise _refused(f"an impossible number {text[:40]!r}")
    return int(text)


def _pax_records(data: bytes) -> _Records:
    """The records `LENGTH KEY=VALUE\\n` of an extended header."""
    records = []
    at = 0
    while at < len(data):
        if data[at] == 0:  # padding by some old programs
            break
        word = data[at : at + 20].partition(b" ")[0]
        length = _decimal(word)
        record = data[at + len(word) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if length <= len(word) + 1 or at + length > len(data) or record[-1:] != b"\n" or not equals:
            raise _refused("a damaged extended header")
        records.append((key, value))
        at += length
    return records


def _apply_records(member: Member, records: _Records) -> _Sparse | None:
    """Let extended records override the header; what they say of holes comes back."""
    sparse = False
    for key, value in records:
        if key.startswith(_XATTR):
            member.xattrs[key[len(_XATTR) :].decode("utf-8", "surrogateescape")] = value
        elif key.startswith(b"GNU.sparse."):
            sparse = True
        elif not value:
            continue  # the header's own holds
        elif key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.link = value
        elif key in (b"size", b"uid", b"gid"):
            setattr(member, key.decode(), _decimal(value))
        elif key == b"mtime":
            member.mtime = _nanoseconds(value)
    return _Sparse(records) if sparse else None


def _nanoseconds(text: bytes) -> int:
    """Decimal seconds, exactly."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise _refused(f"an impossible time {text[:40]!r}")
    return sign * (_decimal(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def _old_sparse_entries(field: bytes) -> list[tuple[int, int]]:
    found = []
    for at in range(0, len(field), 24):
        if not field[at]:
            break
        found.append(
            (_number(field[at : at + 12], "hole"), _number(field[at + 12 : at + 24], "hole"))
        )
    return found


def _check_sparse(member: Member, stored: int) -> None:
    """Raises ImageError unless the map is in order, within the file, and fits the data stored."""
    end = total = 0
    for offset, length in member.sparse or ():
        if offset < end or length < 0:
            raise _refused(f"{member.name[:200]!r} has a disordered map of its holes")
        end = offset + length
        total += length
    if end > member.size or member.size > _LARGEST or total != stored:
        raise _refused(f"{member.name[:200]!r} has a map of its holes that does not fit")


def _refused(reason: str) -> ImageError:
    return ImageError(f"the tar archive is refused: {reason}")
