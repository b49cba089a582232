"""Signals by number."""

from __future__ import annotations

import os
import signal

import pytest

from minicontainer import kernel
from tests.support.child import in_child


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("15", 15),
        ("64", 64),
        (" KILL ", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX", 64),
        ("RTMAX-1", 63),
    ],
)
def test_signal_names(name: str, number: int) -> None:
    assert kernel.signal_number(name) == number


@pytest.mark.parametrize(
    "name", ["", "0", "65", "-1", "NOPE", "SIGSIGTERM", "RTMIN+31", "RTMIN-1", "RTMIN+", "١", "RT"]
)
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        kernel.signal_number(name)


def test_blocked_signals_are_read_from_a_descriptor() -> None:
    def act() -> list[int]:
        kernel.block_signals([kernel.SIGTERM, kernel.SIGRTMIN + 3])
        fd = kernel.signalfd([kernel.SIGTERM, kernel.SIGRTMIN + 3], kernel.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            kernel.read_signalfd(fd)
        kernel.kill(os.getpid(), kernel.SIGRTMIN + 3)
        kernel.kill(os.getpid(), kernel.SIGTERM)
        return sorted([kernel.read_signalfd(fd), kernel.read_signalfd(fd)])

    assert in_child(act) == [15, 37]


def test_signals_are_reset_ignored_and_unblocked() -> None:
    def act() -> list[object]:
        kernel.ignore_signal(kernel.SIGUSR1)
        ignored = signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        kernel.reset_signal(kernel.SIGUSR1)
        default = signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        kernel.block_signals([kernel.SIGUSR1])
        kernel.unblock_all_signals()
        return [ignored, default, len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]

    assert in_child(act) == [True, True, 0]
