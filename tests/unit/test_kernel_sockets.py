"""Unix sockets as descriptors."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    ours, theirs = kernel.socketpair()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_messages_keep_their_bounds(pair: tuple[int, int]) -> None:
    ours, theirs = pair
    for data in (b"one", b"two" * 1000, b"\0"):
        kernel.send_message(ours, data)
    assert kernel.receive_message(theirs) == (b"one", [])
    assert kernel.receive_message(theirs) == (b"two" * 1000, [])
    assert kernel.receive_message(theirs) == (b"\0", [])


def test_descriptors_travel_along(pair: tuple[int, int]) -> None:
    read_fd, write_fd = kernel.pipe2()
    kernel.send_message(pair[0], b"take", [read_fd, write_fd])
    data, fds = kernel.receive_message(pair[1])
    assert data == b"take"
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(read_fd).st_ino] * 2
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in (read_fd, write_fd, *fds):
        os.close(fd)


def test_the_end_of_file_is_empty() -> None:
    ours, theirs = kernel.socketpair()
    os.close(ours)
    assert kernel.receive_message(theirs) == (b"", [])
    with pytest.raises(BrokenPipeError) as caught:
        kernel.send_message(theirs, b"x")
    assert caught.value.call == f'send_message({theirs}, "x")'
    os.close(theirs)


@pytest.mark.parametrize("handed", [5, 40])
def test_more_descriptors_than_awaited_are_refused_and_closed(
    pair: tuple[int, int], handed: int
) -> None:
    kernel.send_message(pair[0], b"x", [pair[0]] * handed)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:
        kernel.receive_message(pair[1], max_fds=2)
    assert caught.value.errno == errno.EMSGSIZE
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_longer_message_than_awaited_is_refused(pair: tuple[int, int]) -> None:
    kernel.send_message(pair[0], b"x" * 100)
    with pytest.raises(OSError) as caught:
        kernel.receive_message(pair[1], size=99)
    assert caught.value.errno == errno.EMSGSIZE


def test_a_signal_does_not_end_the_waiting(pair: tuple[int, int]) -> None:
    heard = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    main = threading.main_thread().ident or 0

    def interrupt() -> None:
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.1)
        kernel.send_message(pair[0], b"at last")

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert kernel.receive_message(pair[1]) == (b"at last", [])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, old)
    assert heard == [signal.SIGUSR1]


@pytest.mark.parametrize("depth", [1, 6])
def test_listen_connect_and_credentials(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["d" * 30] * depth)
    directory.mkdir(parents=True)
    path = f"{directory}/attach"
    listening = kernel.unix_listen(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    client = kernel.unix_connect(path)
    server = kernel.accept(listening)
    assert kernel.peer_credentials(server) == (os.getpid(), os.geteuid(), os.getegid())
    assert kernel.send(client, b"hello") == 5
    kernel.shutdown(client, kernel.SHUT_WR)
    assert kernel.recv(server, 100) == b"hello"
    assert kernel.recv(server, 100) == b""
    for fd in (listening, client, server):
        os.close(fd)


def test_the_mode_of_a_listening_socket_is_never_wider(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        fd = kernel.unix_listen(f"{tmp_path}/s", mode=0o640)
        assert os.stat(f"{tmp_path}/s").st_mode & 0o777 == 0o640
        os.close(fd)
    finally:
        os.umask(old)


def test_refusals_name_the_path(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    path = f"{tmp_path}/nobody"
    with pytest.raises(FileNotFoundError) as caught:
        kernel.unix_connect(path)
    assert caught.value.call == f'unix_connect("{path}", SOCK_STREAM)'
    kernel.close(kernel.unix_listen(path))
    with pytest.raises(ConnectionRefusedError):
        kernel.unix_connect(path)
    with pytest.raises(OSError) as taken:
        kernel.unix_listen(path)
    assert taken.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError) as too_long:
        kernel.unix_listen(f"{tmp_path}/{'n' * 120}")
    assert too_long.value.errno == errno.ENAMETOOLONG
    assert os.listdir("/proc/self/fd") == before


def test_a_lock_that_is_held_blocks(tmp_path: Path) -> None:
    first = kernel.open(f"{tmp_path}/lock", kernel.O_CREAT | kernel.O_RDWR, 0o600)
    second = kernel.open(f"{tmp_path}/lock", kernel.O_RDWR)
    kernel.flock(first, kernel.LOCK_EX)
    with pytest.raises(BlockingIOError) as caught:
        kernel.flock(second, kernel.LOCK_EX | kernel.LOCK_NB)
    assert caught.value.call == f"flock({second}, LOCK_EX|LOCK_NB)"
    kernel.flock(first, kernel.LOCK_UN)
    kernel.flock(second, kernel.LOCK_EX | kernel.LOCK_NB)
    os.close(first)
    os.close(second)
