"""engine.times: the times of records, there and back."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import times


@given(st.datetimes(min_value=datetime.datetime(1, 1, 2)))
def test_seconds_are_those_of_datetime(moment: datetime.datetime) -> None:
    known = moment.replace(tzinfo=datetime.timezone.utc).timestamp()
    assert times.seconds(f"{moment.isoformat()}Z") == pytest.approx(known, abs=1e-4)


@given(st.integers(0, 4 * 10**18))
def test_what_was_written_is_read(nanoseconds: int) -> None:
    assert times.seconds(times.text(nanoseconds)) == pytest.approx(nanoseconds / 1e9, abs=1e-5)


@pytest.mark.parametrize("stamp", ["", times.ZERO])
def test_no_time_is_zero(stamp: str) -> None:
    assert times.seconds(stamp) == 0.0


@pytest.mark.parametrize("stamp", ["yesterday", "2026-11", "2026-11-23T10", "2026-11-23T1:2:x"])
def test_what_is_no_time_is_a_value_error(stamp: str) -> None:
    with pytest.raises(ValueError):
        times.seconds(stamp)
