"""What the program says: results on standard output, everything else on standard error.

Nothing is buffered here, so nothing is left to flush.  Text is UTF-8 whatever the locale; bytes
that were none in an argument come out as they went in.  On a terminal, characters that could move
its cursor or hide text are shown as escapes: names, labels and commands are other people's words.
"""

from __future__ import annotations

import os

from minicontainer import steps

STDOUT = 1
STDERR = 2


class Closed(Exception):
    """Whoever read our standard output has gone: time to end, quietly."""


def line(text: str) -> None:
    """Print `text` and a newline on standard output."""
    show(f"{text}\n")


def show(text: str) -> None:
    """Print `text`, which may be many lines, on standard output."""
    write(encode(printable(text) if os.isatty(STDOUT) else text))


def message(text: str) -> None:
    """Print one line on standard error; line breaks in it are shown as escapes."""
    try:
        write(encode(printable(text, keep="") + "\n"), STDERR)
    except OSError:  # nobody is left to be told
        pass


def warning(text: str) -> None:
    """Print `Warning: text` on standard error."""
    message(f"Warning: {text}")


def write(data: bytes, descriptor: int = STDOUT) -> None:
    """Write all of `data`; raises Closed when the reader of standard output has gone."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _wait_until_writable(descriptor)
        except BrokenPipeError:
            if descriptor == STDERR:
                return
            raise Closed from None
        except OSError as failure:
            if descriptor == STDERR:
                raise
            raise steps.kernel_error("write to standard output", failure) from failure


def _wait_until_writable(descriptor: int) -> None:
    """Wait: somebody who shares the open file has made it non-blocking."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def encode(text: str) -> bytes:
    """`text` as UTF-8; escaped bytes of arguments become those bytes again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate out of somebody's JSON
        return text.encode("utf-8", "backslashreplace")


def printable(text: str, keep: str = "\n\t") -> str:
    """`text` with control, direction and undecodable characters as escapes, but for `keep`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
