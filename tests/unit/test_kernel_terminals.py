"""Pseudo-terminals through the door."""

from __future__ import annotations

import os

import pytest

from minicontainer import kernel
from minicontainer.kernel import procfs
from tests.support.child import in_child


def test_a_pty_is_opened_without_a_path() -> None:
    master = kernel.open("/dev/ptmx", kernel.O_RDWR | kernel.O_NOCTTY)
    try:
        kernel.unlock_pty(master)
        peer = kernel.open_pty_peer(master, kernel.O_RDWR | kernel.O_NOCTTY)
        assert os.ttyname(peer) == f"/dev/pts/{kernel.pty_number(master)}"
        kernel.set_window_size(master, 33, 111)
        assert kernel.get_window_size(peer) == (33, 111)
        attributes = kernel.tcgetattr(peer)
        kernel.tcsetattr(peer, 0, attributes)
        os.close(peer)
    finally:
        os.close(master)


def test_a_session_leader_gets_its_controlling_terminal() -> None:
    def act() -> str:
        master = kernel.open("/dev/ptmx", kernel.O_RDWR | kernel.O_NOCTTY)
        kernel.unlock_pty(master)
        peer = kernel.open_pty_peer(master, kernel.O_RDWR | kernel.O_NOCTTY)
        kernel.setsid()
        kernel.set_controlling_terminal(peer)
        kernel.ignore_signal(kernel.SIGHUP)
        fields = procfs.stat(os.getpid()) or []
        return fields[4]

    assert in_child(act) != "0"  # tty_nr, proc_pid_stat(5)


def test_what_is_no_terminal_says_so() -> None:
    read_fd, write_fd = kernel.pipe2()
    with pytest.raises(OSError) as caught:
        kernel.get_window_size(read_fd)
    assert caught.value.call == f"get_window_size({read_fd})"
    os.close(read_fd)
    os.close(write_fd)
