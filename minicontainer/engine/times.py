"""Times as records keep them: RFC 3339, UTC, nine digits."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"


def now() -> str:
    """The present moment, such as 2026-11-23T10:45:56.143698672Z."""
    return text(time.time_ns())


def text(nanoseconds: int) -> str:
    """`nanoseconds` since the epoch as RFC 3339."""
    second, rest = divmod(nanoseconds, 1_000_000_000)
    year, month, day, hour, minute, seconds = time.gmtime(second)[:6]
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{seconds:02d}.{rest:09d}Z"


def seconds(stamp: str) -> float:
    """Seconds since the epoch of a time that `text` made; 0.0 for an empty one."""
    if not stamp or stamp == ZERO:
        return 0.0
    date, _, clock = stamp.rstrip("Z").partition("T")
    whole, _, fraction = clock.partition(".")
    year, month, day = map(int, date.split("-"))
    hour, minute, second = map(int, whole.split(":"))
    moment = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    return moment + (float(f"0.{fraction}") if fraction else 0.0)


def _days(year: int, month: int, day: int) -> int:
    """Days since the epoch; `calendar` and `datetime` cost `ps` two milliseconds to import.

    The year counts from March, so that the leap day is its last.
    """
    if month < 3:
        year, month = year - 1, month + 12
    leap_days = year // 4 - year // 100 + year // 400
    return 365 * year + leap_days + (153 * month - 457) // 5 + day - 719469
