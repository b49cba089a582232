"""Times and ages, as typed and as shown. All times are seconds since 1970, in UTC."""

from __future__ import annotations

import time

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SECOND = 10**9


def moment(text: str, now: float | None = None) -> float:
    """The time that `text` means: RFC 3339, unix seconds, or an age like `90s` or `1h30m`.

    Raises ValueError.
    """
    return nanoseconds(text, now) / 1e9


def nanoseconds(text: str, now: float | None = None) -> int:
    """The same in nanoseconds, exactly: a time that we printed means what it was."""
    try:
        if text.replace(".", "", 1).isdecimal() and text.isascii():
            seconds, _, fraction = text.partition(".")
            return int(seconds or "0") * _SECOND + _fraction(fraction)
        if text[:1].isdecimal() and text[-1:] in "smh":
            return int(((time.time() if now is None else now) - duration(text)) * 1e9)
        return _rfc3339(text)
    except ValueError:
        raise ValueError(
            "expected a time such as 2026-11-23T10:45:56Z, unix seconds, or an age such as 1h30m"
        ) from None


def duration(text: str) -> float:
    """Seconds in `text`, Go's spelling: `90s`, `1h30m`, `1.5h`, `300ms`. Raises ValueError."""
    total, rest = 0.0, text
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsuµn"))]
        rest = rest[len(unit) :]
        if unit not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise ValueError("expected a duration such as 90s or 1h30m")
        total += float(number) * _UNITS[unit]
    if not text:
        raise ValueError("expected a duration such as 90s or 1h30m")
    return total


def rfc3339(text: str) -> float:
    """The time in `text`, a date with or without a time of day; no zone means local time.

    Raises ValueError.
    """
    return _rfc3339(text) / 1e9


def _rfc3339(text: str) -> int:
    import datetime

    stamp = text.strip()
    day, separator, clock = stamp.partition("T") if "T" in stamp else stamp.partition(" ")
    if not separator:
        return int(datetime.datetime.fromisoformat(_ascii(day)).timestamp()) * _SECOND
    zone = ""
    if clock[-1:] in ("Z", "z"):
        clock, zone = clock[:-1], "+00:00"
    elif clock[-6:-5] in ("+", "-"):
        clock, zone = clock[:-6], clock[-6:]
    clock, _, fraction = clock.partition(".")
    if fraction and not (fraction.isascii() and fraction.isdecimal()):
        raise ValueError("bad fraction of a second")
    rest = _fraction(fraction)
    whole = datetime.datetime.fromisoformat(_ascii(f"{day}T{clock}{zone}"))
    return int(whole.timestamp()) * _SECOND + rest


def _fraction(digits: str) -> int:
    """The nanoseconds of the digits behind a decimal point."""
    return int(digits[:9].ljust(9, "0"))


def _ascii(text: str) -> str:
    # fromisoformat takes week dates and basic forms on newer Pythons only; they all mean none here.
    if not text.isascii() or len(text) < 10 or text[4] != "-" or "W" in text:
        raise ValueError("not a date of RFC 3339")
    return text


def age(seconds: float) -> str:
    """How long something took or is ago, in one unit, as Docker words it."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < _MINUTE:
        return f"{whole} seconds"
    minutes, hours = whole // _MINUTE, int(seconds / _HOUR + 0.5)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    return _days(hours, whole // _HOUR)


def _days(hours: int, exact: int) -> str:
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 2 * 365:
        return f"{days // 30} months"
    return f"{exact // 24 // 365} years"


def ago(then: float, now: float) -> str:
    """The age of `then` as CREATED shows it."""
    return f"{age(max(0.0, now - then))} ago"


def local(then: float) -> str:
    """`then` as CreatedAt shows it: `2026-11-23 10:45:56 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(then))
