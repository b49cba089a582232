"""When a container that ended is started again, and how long that waits."""

from __future__ import annotations

import pytest

from minicontainer.engine.monitor import next_delay, should_restart


@pytest.mark.parametrize(
    ("name", "maximum", "exit_code", "restarts", "expected"),
    [
        ("no", 0, 1, 0, False),
        ("always", 0, 0, 0, True),
        ("always", 0, 1, 1000, True),
        ("unless-stopped", 0, 0, 5, True),
        ("on-failure", 0, 0, 0, False),
        ("on-failure", 0, 1, 1000, True),
        ("on-failure", 3, 137, 2, True),
        ("on-failure", 3, 137, 3, False),
    ],
)
def test_policy(name: str, maximum: int, exit_code: int, restarts: int, expected: bool) -> None:
    policy = {"name": name, "maximum": maximum}
    assert should_restart(policy, exit_code, restarts, False) is expected
    assert should_restart(policy, exit_code, restarts, True) is False


def test_delay_doubles_to_a_minute() -> None:
    delays = [0.0]
    for _ in range(12):
        delays.append(next_delay(delays[-1], 0.5))
    assert delays[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-2:] == [60.0, 60.0]


def test_delay_is_forgotten_after_a_long_run() -> None:
    assert next_delay(51.2, 9.9) == 60.0
    assert next_delay(51.2, 10.0) == 0.1
