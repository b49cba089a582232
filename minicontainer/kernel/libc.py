"""How we ask the C library: prototypes, one check of the result, and the means of encoding.

`_ctypes`, the C half of `ctypes`, is used directly: the Python half costs more to import than
the rest of the door together.  No structure types are declared: a structure is a `bytes` that
`words` lays out, an output is a `bytearray`.  Man pages: syscall(2), errno(3).
"""

from __future__ import annotations

import os
import sys
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    byref,
    dlopen,
    dlsym,
    get_errno,
    sizeof,
)

from minicontainer.kernel import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn


class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Unsigned(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _UnsignedLong(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class _Char(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


class _String(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class _Pointer(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


_TYPES = {
    "i": _Int,
    "I": _Unsigned,
    "l": _Long,
    "L": _UnsignedLong,
    "s": _String,
    "p": _Pointer,
}
WORD = sizeof(_UnsignedLong)


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _Call(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_library = dlopen(None, 0)  # type: ignore[arg-type]  # this process itself, as in CDLL(None)
_syscall = dlsym(_library, "syscall")


def failure(number: int, depth: int = 1) -> OSError:
    """The OSError for an errno, its `call` made from the arguments of the door's wrapper.

    The wrapper is the nearest calling frame whose name is in the table of `decode`.
    """
    frame = sys._getframe(depth)
    while frame.f_back is not None and frame.f_code.co_name not in _NAMED:
        frame = frame.f_back
    code = frame.f_code
    values = [frame.f_locals[name] for name in code.co_varnames[: code.co_argcount]]
    error = OSError(number, os.strerror(number))
    error.call = decode.call(code.co_name, values)  # type: ignore[attr-defined]
    return error


_NAMED = decode.SIGNATURES.keys() | decode.READING.keys()


def _check(result: int, function: object, arguments: object) -> int:
    if result == -1:
        raise failure(get_errno(), 2)
    return result


def library(name: str, types: str) -> Callable[..., int]:
    """A function of the C library, its arguments typed by letters: i I l L s(tring) p(ointer).

    -1 becomes an OSError.  A library without the function fails with ENOSYS when it is called.
    """
    try:
        function = _Function(dlsym(_library, name))
    except OSError:
        return _missing
    return _typed(function, types)


def syscall(types: str) -> Callable[..., int]:
    """A system call past the C library; its number is the first argument."""
    return _typed(_Call(_syscall), "l" + types)


def _typed(function: Any, types: str) -> Callable[..., int]:
    """Declared at its first call: declaring all fifty would cost half a millisecond a start."""

    def call(*arguments: object) -> int:
        if function.errcheck is not _check:
            function.argtypes = [_TYPES[letter] for letter in types]
            function.errcheck = _check
        return int(function(*arguments))

    return call


def _missing(*arguments: object) -> NoReturn:
    raise failure(38, 2)  # ENOSYS, the same on every machine we know


def text(value: str | None) -> bytes | None:
    """A string for the kernel; None is NULL. ValueError for an embedded null byte."""
    if value is None:
        return None
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def words(values: Iterable[int], size: int = WORD) -> bytes:
    """Unsigned numbers of `size` bytes each, in this machine's byte order."""
    return b"".join([value.to_bytes(size, sys.byteorder) for value in values])


def number(data: bytes | bytearray) -> int:
    """The unsigned number that `data` is in this machine's byte order."""
    return int.from_bytes(data, sys.byteorder)


def address(data: bytes) -> int:
    """Where the bytes are; they must stay referenced while the address is used."""
    return int(_UnsignedLong.from_buffer(_String(data)).value)


def output(buffer: bytearray) -> Any:
    """A pointer to a buffer that the kernel may write to."""
    return byref(_Char.from_buffer(buffer))


def output_address(buffer: bytearray) -> int:
    """Where the buffer is; it must neither move nor go while the address is used."""
    import _ctypes

    return _ctypes.addressof(_Char.from_buffer(buffer))
