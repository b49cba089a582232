"""Raw mode and sizes, on a real pty."""

from __future__ import annotations

import os
import termios

import pytest

from minicontainer.primitives import terminal
from tests.support.child import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_raw_terminal_passes_bytes_unchanged_both_ways(pty: tuple[int, int]) -> None:
    master, slave = pty
    data = bytes(range(1, 256))
    with terminal.raw(slave):
        os.write(master, data)
        assert os.read(slave, 1000) == data
        os.write(slave, b"a\nb\r\n")
        assert os.read(master, 1000) == b"a\nb\r\n"


def test_modes_come_back(pty: tuple[int, int]) -> None:
    before = termios.tcgetattr(pty[1])
    with pytest.raises(KeyError), terminal.raw(pty[1]):
        assert termios.tcgetattr(pty[1]) != before
        raise KeyError
    assert termios.tcgetattr(pty[1]) == before


def test_raw_mode_is_renewed(pty: tuple[int, int]) -> None:
    before = termios.tcgetattr(pty[1])
    mode = terminal.raw(pty[1])
    with mode:
        raw = termios.tcgetattr(pty[1])
        termios.tcsetattr(pty[1], termios.TCSANOW, before)
        mode.renew()
        assert termios.tcgetattr(pty[1]) == raw
    assert termios.tcgetattr(pty[1]) == before


def test_what_is_no_terminal_is_left_alone() -> None:
    read_fd, write_fd = os.pipe()
    with terminal.raw(read_fd):
        pass
    assert terminal.size(read_fd) is None
    terminal.copy_size(read_fd, write_fd)
    os.close(read_fd)
    os.close(write_fd)


def test_terminal_that_hung_up_does_no_harm(pty: tuple[int, int]) -> None:
    master, slave = os.openpty()
    with terminal.raw(slave):
        os.close(master)
    os.close(slave)


def test_terminal_of_another_job_is_left_in_its_modes(pty: tuple[int, int]) -> None:
    """In the background nobody gives back what the shell has set meanwhile."""

    def act() -> bool:
        import fcntl
        import signal

        os.setsid()
        fcntl.ioctl(pty[1], termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with terminal.raw(pty[1]):
            theirs = termios.tcgetattr(pty[1])
            theirs[3] ^= termios.ECHO
            termios.tcsetattr(pty[1], termios.TCSANOW, theirs)
            other = os.fork()
            if other == 0:
                os.setpgid(0, 0)
                os.tcsetpgrp(pty[1], os.getpid())
                os._exit(0)
            os.waitpid(other, 0)
        return termios.tcgetattr(pty[1]) == theirs

    assert in_child(act)


def test_size_is_copied(pty: tuple[int, int]) -> None:
    other_master, other = os.openpty()
    assert terminal.size(other) is None
    termios_size = (37, 111)
    from minicontainer import kernel

    kernel.set_window_size(pty[1], *termios_size)
    terminal.copy_size(pty[1], other)
    assert terminal.size(other_master) == termios_size
    os.close(other_master)
    os.close(other)
