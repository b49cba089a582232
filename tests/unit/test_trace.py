"""The trace rebinds the door, tells each call, and leaves no trace of itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer import kernel, steps, trace
from minicontainer.kernel import decode, netlink
from tests.support.child import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"\[(\w+) (\d+)\] (.*) <(\d+)us>\n")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    told: list[str] = []
    trace.enable(told.append)
    yield told
    trace.disable()


def call_of(line: str) -> str:
    match = LINE.fullmatch(line)
    assert match is not None, line
    return match[3]


def test_a_call_is_one_line_with_role_pid_result_and_time(lines: list[str], tmp_path: Path) -> None:
    path = f"{tmp_path}/x"
    kernel.mkdir(path, 0o700)
    fd = kernel.open(path, kernel.O_PATH | kernel.O_DIRECTORY)
    kernel.close(fd)
    assert [call_of(line) for line in lines] == [
        f'mkdir("{path}", 0700) = 0',
        f'open("{path}", O_RDONLY|O_DIRECTORY|O_CLOEXEC|O_PATH) = {fd}',
        f"close({fd}) = 0",
    ]
    assert lines[0].startswith(f"[engine {os.getpid()}] ")


def test_a_failure_is_told_and_raised(lines: list[str]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kernel.mount("proc", "/nonexistent", "proc", kernel.MS_NOSUID)
    call = 'mount("proc", "/nonexistent", "proc", MS_NOSUID, NULL)'
    assert caught.value.call == call  # type: ignore[attr-defined]
    assert call_of(lines[0]) == f"{call} = -1 ENOENT (No such file or directory)"


def test_defaults_and_keywords_are_filled_in(lines: list[str]) -> None:
    with pytest.raises(OSError):
        kernel.mount_setattr(-1, "", kernel.AT_EMPTY_PATH, attr_clr=kernel.MOUNT_ATTR_RDONLY)
    assert 'mount_setattr(-1, "", AT_EMPTY_PATH, 0, MOUNT_ATTR_RDONLY, 0, 0) = -1' in lines[0]


def test_wrong_arguments_are_python_errors_as_ever(lines: list[str]) -> None:
    with pytest.raises(TypeError):
        kernel.unshare()  # type: ignore[call-arg]
    with pytest.raises(ValueError):
        kernel.umount2("a\0b")
    assert lines == []


def test_results_are_told_as_they_are(lines: list[str]) -> None:
    old = kernel.umask(0o22)
    kernel.umask(old)
    fds = kernel.pipe2()
    kernel.write(fds[1], b"hello")
    for fd in fds:
        kernel.close(fd)
    told = [call_of(line) for line in lines]
    assert told[1] == f"umask(0{old:o}) = 022"
    assert told[2] == f"pipe2(O_CLOEXEC) = ({fds[0]}, {fds[1]})"
    assert told[3] == f'write({fds[1]}, "hello") = 5'


def test_disable_gives_back_the_very_same_functions() -> None:
    before = {name: getattr(kernel, name) for name in decode.SIGNATURES}
    exchange = netlink.exchange
    trace.enable(lambda text: None, explain=True)
    assert all(getattr(kernel, name) is not function for name, function in before.items())
    trace.enable(lambda text: None)  # twice is once
    trace.disable()
    assert {name: getattr(kernel, name) for name in decode.SIGNATURES} == before
    assert netlink.exchange is exchange
    assert steps.listener is None


def test_off_costs_nothing_not_even_an_import() -> None:
    program = (
        "import sys; from minicontainer import kernel;"
        "print('minicontainer.trace' in sys.modules, 'time' in sys.modules)"
    )
    command = [sys.executable, "-S", "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert output.split()[0] == "False"


def test_explain_has_headings_and_says_why_once() -> None:
    told: list[str] = []
    trace.enable(told.append, explain=True)
    try:
        with steps.step("wait for %s", "nobody"):
            for fd in kernel.socketpair() + kernel.socketpair():
                kernel.close(fd)
    finally:
        trace.disable()
    assert told[0] == "▸ wait for nobody\n"
    assert f"\n      why: {trace.WHY['socketpair']}\n" in told[1]
    assert "why" not in told[2]


def test_reasons_are_for_calls_that_there_are() -> None:
    assert trace.WHY.keys() - {"exchange"} <= decode.SIGNATURES.keys()


def test_a_forked_child_tells_its_part(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    program = f"""
import os
from minicontainer import kernel, steps, trace
trace.enable(trace.writer({str(path)!r}))
pid = kernel.fork()
if pid == 0:
    steps.role = "init"
    kernel.close_range(3, 2**32 - 1)
    kernel.setsid()
    for fd in range(2000):
        try:
            kernel.close(fd)
        except OSError:
            pass
    kernel.execve("/bin/true", ["true", "x"], {{"A": "b"}})
kernel.waitpid(pid, 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    told = path.read_text(encoding="utf-8").splitlines()
    (forked,) = [line for line in told if "fork()" in line]  # the child may be told of first
    assert forked.startswith("[engine ")
    child = forked.partition(" = ")[2].partition(" ")[0]
    mine = [line for line in told if line.startswith(f"[init {child}] ")]
    assert "close_range(3, 4294967295, 0) = 0" in mine[0]
    assert "setsid() = 0" in mine[1]
    assert mine[-1] == f'[init {child}] execve("/bin/true", ["true", "x"], {{1 variables}}) = ?'
    assert told[-1].startswith("[engine ") and f"waitpid({child}, 0) = ({child}, 0)" in told[-1]


@pytest.mark.root
def test_a_child_in_a_pid_namespace_has_the_pid_that_we_know_it_by() -> None:
    def act() -> list[object]:
        read_fd, write_fd = os.pipe()
        trace.enable(lambda text: os.write(write_fd, text.encode()))
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = kernel.fork()
        if pid == 0:
            kernel.setsid()
            os._exit(0)
        kernel.waitpid(pid, 0)
        told = os.read(read_fd, 10000).decode()
        return [f"[engine {pid}] setsid() = 0 " in told, f"] fork() = {pid} " in told]

    assert in_child(act) == [True, True]


def test_the_writers_descriptor_is_high_and_does_not_outlive_execve(tmp_path: Path) -> None:
    writer = trace.writer(f"{tmp_path}/t")
    try:
        assert writer.fd > 500
        assert not os.get_inheritable(writer.fd)
        writer("\udcff ▸\n")
        assert (tmp_path / "t").read_bytes() == b"\xff \xe2\x96\xb8\n"
    finally:
        os.close(writer.fd)
    writer("nobody listens any more")  # is no failure


def test_the_writer_fits_below_a_small_limit(tmp_path: Path) -> None:
    def act() -> int:
        kernel.setrlimit(kernel.RLIMIT_NOFILE, (64, 64))
        return trace.writer(f"{tmp_path}/t").fd

    assert 40 <= in_child(act) < 64


def test_close_range_goes_around_the_writer(tmp_path: Path) -> None:
    def act() -> list[bool]:
        writer = trace.writer(f"{tmp_path}/t")
        above = os.dup2(0, writer.fd + 5)
        below = os.dup2(0, writer.fd - 5)
        trace.enable(writer)
        kernel.close_range(writer.fd - 5, writer.fd + 5)
        open_now = os.listdir("/proc/self/fd")
        return [str(fd) in open_now for fd in (below, writer.fd, above)]

    try:
        kernel.close_range(100000, 100000)
    except OSError as failure:
        pytest.skip(f"no close_range here: {failure}")
    assert in_child(act) == [False, True, False]


def test_netlink_messages_are_told(lines: list[str]) -> None:
    with netlink.Connection() as connection:
        with pytest.raises(OSError):
            connection.index("no-such-link")
    told = [call_of(line) for line in lines]
    assert told[-1] == (
        "netlink(RTM_GETLINK, 0, {IFNAME=no-such-link}) = -1 ENODEV (No such device)"
    )


def test_times_are_microseconds(lines: list[str]) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(0.05)
        os._exit(0)
    kernel.waitpid(pid, 0)
    match = LINE.fullmatch(lines[0])
    assert match is not None
    assert 40_000 < int(match[4]) < 5_000_000
