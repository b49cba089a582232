"""Parsers of amounts: sizes in bytes, CPUs in billionths of one, whole numbers in a range.

Each raises ValueError with the reason and what is accepted; `options` adds the flag's name.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST = (1 << 63) - 1
_UNITS = "bkmgtp"
_MEMORY_MINIMUM = 6 << 20
_NANO = 9
_PIDS_MAXIMUM = 4194304


def decimal(text: str) -> tuple[int, int]:
    """(n, d) so that `text`, digits with at most one point, is n divided by 10**d."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 40:
        raise ValueError("expected a decimal number")
    return int(digits), len(fraction)


def size(text: str, factor: int = 1024) -> int:
    """Bytes: a decimal, then b k m g t p, with `i` and `b` at will, in any case."""
    number = text.lower()
    if number[-1:] == "b":
        number = number[:-1]
    if number[-1:] == "i":
        number = number[:-1]
    power = _UNITS.find(number[-1:]) if number else 0
    if power > 0:
        number = number[:-1]
    try:
        digits, places = decimal(number.rstrip(" ") if number[:1] != " " else "")
    except ValueError:
        raise ValueError("expected a size such as 256m, 1.5GiB or 1048576 (bytes)") from None
    count: int = digits * factor ** max(power, 0) // 10**places
    if count > LARGEST:
        raise ValueError(f"too large; accepted up to {LARGEST} bytes")
    return count


def memory(text: str) -> int | None:
    """A memory limit in bytes; None for 0, which means no limit."""
    try:
        count = size(text)
    except ValueError as reason:
        raise ValueError(f"{reason}; accepted from 6m, or 0 for no limit") from None
    if 0 < count < _MEMORY_MINIMUM:
        raise ValueError("too small; accepted from 6m, or 0 for no limit")
    return count or None


def memory_swap(text: str) -> int | None:
    """A limit on memory plus swap in bytes; -1 for no limit, None for 0 (not set)."""
    if text == "-1":
        return -1
    try:
        return size(text) or None
    except ValueError as reason:
        raise ValueError(f"{reason}; or -1 for no limit") from None


def shared_memory(text: str) -> int:
    """The size of /dev/shm in bytes, at least 1."""
    count = size(text)
    if not count:
        raise ValueError("too small; accepted from 1 byte")
    return count


def cpus(text: str) -> int:
    """Billionths of a CPU, from 0.01 to what the host has."""
    host = os.cpu_count() or 1
    accepted = f"accepted from 0.01 to {host} (the CPUs of this host)"
    try:
        digits, places = decimal(text)
    except ValueError as reason:
        raise ValueError(f"{reason}; {accepted}") from None
    nano: int = digits * 10**_NANO // 10**places
    if not 10 ** (_NANO - 2) <= nano <= host * 10**_NANO:
        raise ValueError(f"out of range; {accepted}")
    return nano


def cpu_quota(text: str) -> int:
    """Microseconds of CPU time in a period; 0 and -1 mean no limit."""
    if text == "-1":
        return -1
    try:
        return integer(1000, 10**12, zero=True)(text)
    except ValueError:
        raise ValueError("expected microseconds from 1000, or -1 for no limit") from None


def cpuset(text: str) -> str:
    """A list of CPUs or memory nodes like `0-2,7`."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(n.isascii() and n.isdigit() and len(n) <= 5 for n in numbers):
            raise ValueError("expected a list such as 0-2,7")
        if dash and int(first) > int(last):
            raise ValueError(f"{part} runs backwards; expected a list such as 0-2,7")
    return text


def integer(low: int, high: int, *, zero: bool = False) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`; with `zero`, 0 too (it means not set)."""
    accepted = f"accepted from {low} to {high}{', or 0 for the default' if zero else ''}"

    def parse(text: str) -> int:
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
            raise ValueError(f"expected a whole number; {accepted}")
        number = int(text)
        if not low <= number <= high and not (zero and number == 0):
            raise ValueError(f"out of range; {accepted}")
        return number

    return parse


def pids_limit(text: str) -> int:
    """How many processes and threads; 0 and -1 mean no limit."""
    try:
        return integer(-1, _PIDS_MAXIMUM)(text)
    except ValueError:
        accepted = f"accepted from 1 to {_PIDS_MAXIMUM}, or 0 or -1 for no limit"
        raise ValueError(f"expected a whole number; {accepted}") from None


def stop_timeout(text: str) -> int:
    """Seconds to wait before SIGKILL; -1 for ever."""
    try:
        return integer(-1, 10**9)(text)
    except ValueError:
        raise ValueError("expected whole seconds, 0 to kill at once, or -1 for ever") from None
