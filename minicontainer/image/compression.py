"""Compressed streams read as plain ones: gzip, zstd, bzip2, xz, told apart by their first bytes.

One pass: pieces come from a function, pieces go out, the digest of what goes out is computed on the
way if asked for.  Concatenated members count as one stream, zero bytes after the last are padding.
zstd needs Python 3.14 or the `zstd` program.  RFC 1952, RFC 8878.  Not for: writing.
"""

from __future__ import annotations

from minicontainer.errors import ImageError, UnsupportedMedia

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Read = Callable[[int], bytes]

# What is asked for at once from the source, and given out at once.
_INPUT_BYTES = 1 << 17
PIECE_BYTES = 1 << 18

# deflate cannot exceed 1032, and files of zeros are not rare in layers.
MOST_RATIO = 1100
RATIO_COUNTS_FROM = 10 << 20

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"))
_XZ = b"\xfd7zXZ\0"


def kind(first_bytes: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz` or `plain`, by at least the first six bytes."""
    for magic, name in _MAGIC:
        if first_bytes.startswith(magic):
            return name
    if first_bytes[1:4] == b"\x2a\x4d\x18" and 0x50 <= first_bytes[0] <= 0x5F:
        return "zstd"  # begins with a skippable frame
    return "xz" if first_bytes.startswith(_XZ) else "plain"


class Stream:
    """The plain bytes of what `read` gives; close it, or use it in a `with`.

    read: returns up to so many bytes, b"" at the end.  digest: whether to compute `digest()`.
    `kind` is how it is packed, `first_bytes` what it begins with (up to 512, packed), `consumed`
    and `produced` count bytes.  Reading raises ImageError for damaged data and for bombs.
    """

    def __init__(self, read: Read, *, digest: bool = False) -> None:
        self._source = read
        self._kept = b""
        self.first_bytes = b""
        while len(self.first_bytes) < 512 and (piece := read(_INPUT_BYTES)):
            self._kept += piece
            self.first_bytes = self._kept[:512]
        self.kind = kind(self.first_bytes)
        self.consumed = self.produced = 0
        self._hash = _sha256() if digest else None
        self._reader = self._open()

    def _open(self) -> Any:
        if self.kind == "plain":
            return _Plain(self._take)
        if self.kind == "gzip":
            import zlib

            return _Members(self._take, lambda: zlib.decompressobj(31), b"\x1f\x8b", "gzip")
        if self.kind == "bzip2":
            import bz2

            return _Members(self._take, bz2.BZ2Decompressor, b"BZ", "bzip2")
        if self.kind == "xz":
            import lzma

            return _Members(
                self._take, lambda: lzma.LZMADecompressor(memlimit=256 << 20), _XZ, "xz"
            )
        return _open_zstd(self._take)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """End what inflates it, wherever it is."""
        self._reader.close()

    def read(self, size: int = PIECE_BYTES) -> bytes:
        """Up to `size` plain bytes, b"" at the end."""
        piece: bytes = self._reader.read(min(size, PIECE_BYTES))
        self.produced += len(piece)
        if self.produced > RATIO_COUNTS_FROM and self.produced > MOST_RATIO * self.consumed:
            raise ImageError(
                f"compressed data grows more than {MOST_RATIO} times: refused as a bomb"
            )
        if self._hash:
            self._hash.update(piece)
        return piece

    def digest(self) -> str:
        """`sha256:…` of all that was read."""
        assert self._hash
        return f"sha256:{self._hash.hexdigest()}"

    def _take(self, size: int = _INPUT_BYTES) -> bytes:
        if self._kept:
            piece, self._kept = self._kept, b""
        else:
            piece = self._source(size)
        self.consumed += len(piece)
        return piece


def _sha256() -> Any:
    import hashlib

    return hashlib.sha256()


class _Plain:
    def __init__(self, take: Read) -> None:
        self._take = take
        self._kept = b""

    def read(self, size: int) -> bytes:
        piece = self._kept or self._take(size)
        self._kept = piece[size:]
        return piece[:size] if self._kept else piece

    def close(self) -> None:
        pass


class _Members:
    """One or more compressed streams in a row."""

    def __init__(self, take: Callable[[], bytes], make: Callable[[], Any], magic: bytes, name: str):
        self._take, self._make, self._magic, self._name = take, make, magic, name
        self._inner: Any = make()
        self._input = b""

    def read(self, size: int) -> bytes:
        while self._inner is not None:
            if not self._input and getattr(self._inner, "needs_input", True):
                self._input = self._take()
                if not self._input:
                    raise ImageError(f"the {self._name} data ends in the middle")
            piece = self._inflate(size)
            if self._inner.eof:
                self._next_member()
            if piece:
                return piece
        return b""

    def _inflate(self, size: int) -> bytes:
        try:
            piece: bytes = self._inner.decompress(self._input, size)
        except Exception as failure:  # zlib.error, OSError, LZMAError, ZstdError
            if isinstance(failure, MemoryError):
                raise
            raise ImageError(f"the {self._name} data is damaged: {failure}") from None
        # zlib hands back what it did not use; the others keep it.
        self._input = getattr(self._inner, "unconsumed_tail", b"")
        return piece

    def _next_member(self) -> None:
        rest = self._inner.unused_data
        self._inner = None
        while True:
            rest = rest.lstrip(b"\0")
            if len(rest) >= len(self._magic):
                break
            more = self._take()
            if not more:
                break
            rest += more
        if not rest:
            return
        if not rest.startswith(self._magic):
            raise ImageError(f"the {self._name} data is followed by something else")
        self._inner, self._input = self._make(), rest

    def close(self) -> None:
        self._inner = None


def _open_zstd(take: Callable[[], bytes]) -> Any:
    import importlib

    try:
        zstd = importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        return _Program(take, ("zstd", "-dcq"))
    return _Frames(take, zstd.ZstdDecompressor, b"", "zstd")


class _Frames(_Members):
    """zstd frames, any of which may be skippable and give nothing."""

    def _next_member(self) -> None:
        rest = self._inner.unused_data or self._take()
        self._inner = None
        if rest:
            self._inner, self._input = self._make(), rest


class _Program:
    """What a decompressing program writes; a thread feeds it."""

    def __init__(self, take: Callable[[], bytes], command: Iterable[str]) -> None:
        import subprocess
        import threading

        self._take = take
        self._failure: BaseException | None = None
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError:
            raise UnsupportedMedia(
                "zstd data cannot be read here",
                hint="install the zstd program, or use Python 3.14 or later",
            ) from None
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def _feed(self) -> None:
        assert self._process.stdin
        try:
            while piece := self._take():
                self._process.stdin.write(piece)
        except BrokenPipeError:
            pass
        except BaseException as failure:
            self._failure = failure
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass

    def read(self, size: int) -> bytes:
        assert self._process.stdout and self._process.stderr
        piece = self._process.stdout.read1(size)  # type: ignore[attr-defined]
        if piece:
            return bytes(piece)
        self._feeder.join()
        if self._failure:
            raise self._failure
        if self._process.wait():
            said = self._process.stderr.read(300).decode("utf-8", "replace").strip()
            raise ImageError(f"the zstd data is damaged: {said}")
        return b""

    def close(self) -> None:
        self._process.kill()
        self._feeder.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._process.wait()


class ReadAhead:
    """A source read by a thread of its own, a few pieces ahead; close it, or use it in a `with`.

    Inflating and hashing release the interpreter, so they run beside whoever writes the files.
    """

    def __init__(self, read: Callable[[], bytes], pieces: int = 8) -> None:
        import queue
        import threading

        self._read = read
        self._queue: Any = queue.Queue(pieces)
        self._kept = b""
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        piece: Any = True
        while piece and not self._closed:
            try:
                piece = self._read()
            except BaseException as failure:
                self._queue.put(failure)
                return
            self._queue.put(piece)

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def read(self, size: int = PIECE_BYTES) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises what the source raised."""
        if not self._kept:
            piece = self._queue.get()
            if isinstance(piece, BaseException):
                self._queue.put(piece)
                raise piece
            if not piece:
                self._queue.put(piece)
            self._kept = piece
        piece, self._kept = self._kept[:size], self._kept[size:]
        return bytes(piece)

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        import queue

        self._closed = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
