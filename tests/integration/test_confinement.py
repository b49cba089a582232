"""What a container's processes may do: namespaces, capabilities, signals, descriptors, keyring.

The values are those of the defaults' tables; the file tree is in test_confinement_mounts.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from minicontainer import kernel
from tests.support.inside import (
    DEFAULT_CAPABILITIES,
    NAMESPACES,
    capabilities,
    namespaces_of,
    status,
    status_of,
)
from tests.support.runner import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

pytestmark = pytest.mark.root

STATUS = ["cat", "/proc/self/status"]
NO_CAPABILITIES = {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0}


def own_bounding() -> int:
    return capabilities(status_of(os.getpid()))["CapBnd"]


def with_root(bounding: int) -> dict[str, int]:
    return {**NO_CAPABILITIES, "CapPrm": bounding, "CapEff": bounding, "CapBnd": bounding}


# Namespaces


@pytest.mark.lifecycle
def test_each_namespace_differs_from_the_hosts(engine: Engine) -> None:
    engine.detach("--name", "n")
    ours, theirs = namespaces_of("self"), namespaces_of(engine.pid("n"))
    assert [kind for kind in NAMESPACES if ours[kind] == theirs[kind]] == []


@pytest.mark.lifecycle
def test_exec_joins_every_namespace(engine: Engine) -> None:
    engine.detach("--name", "n")
    script = "for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done"
    joined = engine.ok("exec", "n", "sh", "-c", script).split()
    assert joined == list(namespaces_of(engine.pid("n")).values())


def test_command_is_the_first_process_and_sees_no_other(engine: Engine) -> None:
    assert engine.sh("echo $$; ls /proc | grep -c '^[0-9]'").split()[0] == "1"
    engine.detach("--name", "n")
    shown = engine.ok("exec", "n", "ps", "-o", "pid,ppid,args")
    assert [line.split()[2] for line in shown.splitlines()[1:]] == ["sleep", "ps"]


# The root. Had it been a chroot, a second one without chdir would lead out of it.

ESCAPE = """
import os
before = os.stat("/")
os.mkdir("/tmp/jail-of-a-test")
os.chroot("/tmp/jail-of-a-test")
for _ in range(100):
    os.chdir("..")
os.chroot(".")
after = os.stat("/")
print((before.st_dev, before.st_ino) == (after.st_dev, after.st_ino))
"""


def test_root_cannot_be_left_by_a_second_chroot(engine: Engine) -> None:
    python = os.path.realpath(sys.executable)
    assert engine.ok("run", "--rm", "--rootfs", "/", python, "-c", ESCAPE) == "True\n"


def test_nothing_of_the_host_is_in_the_mount_namespace(engine: Engine) -> None:
    """From the host, which sees the whole table; inside one sees only what is below the root."""
    engine.detach("--name", "n")
    pid = engine.pid("n")
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        numbers = {line.split(" ")[0]: line.split(" ")[1] for line in file}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        host = {line.split(" ")[0] for line in file}
    assert not host & set(numbers)
    outside = {parent for parent in numbers.values() if parent not in numbers}
    assert len(outside) == 1, "one root, and every other mount below it"


# Capabilities


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], with_root(DEFAULT_CAPABILITIES)),
        (["-u", "app"], {**NO_CAPABILITIES, "CapBnd": DEFAULT_CAPABILITIES}),
        (["-u", "12345"], {**NO_CAPABILITIES, "CapBnd": DEFAULT_CAPABILITIES}),
    ],
)
def test_capability_sets_of_run(engine: Engine, flags: list[str], expected: dict[str, int]) -> None:
    shown = engine.ok("run", "--rm", *flags, "--rootfs", engine.rootfs, *STATUS)
    assert capabilities(status(shown)) == expected


@pytest.mark.parametrize(
    ("run_flags", "exec_flags", "expected"),
    [
        ([], [], with_root(DEFAULT_CAPABILITIES)),
        ([], ["-u", "app"], {**NO_CAPABILITIES, "CapBnd": DEFAULT_CAPABILITIES}),
        (["-u", "app"], [], {**NO_CAPABILITIES, "CapBnd": DEFAULT_CAPABILITIES}),
        (["-u", "app"], ["-u", "root"], with_root(DEFAULT_CAPABILITIES)),
        (["-u", "1000"], ["-u", "0"], with_root(DEFAULT_CAPABILITIES)),
        (["--cap-drop", "ALL"], [], with_root(0)),
        (
            ["--cap-add", "NET_RAW"],
            [],
            with_root(DEFAULT_CAPABILITIES | 1 << kernel.CAP_NET_RAW),
        ),
    ],
)
def test_capability_sets_of_exec(
    engine: Engine, run_flags: list[str], exec_flags: list[str], expected: dict[str, int]
) -> None:
    engine.detach("--name", "n", *run_flags)
    shown = engine.ok("exec", *exec_flags, "n", *STATUS)
    assert capabilities(status(shown)) == expected


def test_privileged_exec_has_all_of_ours(engine: Engine) -> None:
    engine.detach("--name", "n")
    shown = engine.ok("exec", "--privileged", "n", *STATUS)
    assert capabilities(status(shown)) == with_root(own_bounding())


@pytest.mark.lifecycle
def test_capability_sets_are_the_same_after_a_restart(engine: Engine) -> None:
    engine.detach("--name", "n")
    engine.ok("restart", "-t", "0", "n")
    assert capabilities(status_of(engine.pid("n"))) == with_root(DEFAULT_CAPABILITIES)


def test_capabilities_of_the_caller_do_not_add_any(engine: Engine) -> None:
    """Not even inheritable and ambient ones."""
    engine.command = ["setpriv", "--inh-caps", "+net_raw", "--ambient-caps", "+net_raw"] + (
        engine.command
    )
    for flags in ([], ["-u", "app"]):
        shown = engine.ok("run", "--rm", *flags, "--rootfs", engine.rootfs, *STATUS)
        found = capabilities(status(shown))
        assert (found["CapInh"], found["CapAmb"]) == (0, 0)
        assert found["CapBnd"] == DEFAULT_CAPABILITIES


# Signals, umask, scheduling


def test_no_signal_is_ignored_or_blocked(engine: Engine) -> None:
    def spoil() -> None:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2, 40):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGWINCH, 41))

    words = ["run", "--rm", "--rootfs", engine.rootfs, *STATUS]
    found = status(engine.ok(*words, preexec_fn=spoil))
    assert [int(found[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")] == [0] * 4
    engine.detach("--name", "n")
    found = status(engine.ok("exec", "n", *STATUS, preexec_fn=spoil))
    assert [int(found[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")] == [0] * 4


def test_closed_pipe_kills_as_anywhere(engine: Engine) -> None:
    assert engine.sh("(yes; echo $? >&2) 2>/tmp/code | head -n 1; cat /tmp/code") == "y\n141\n"


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_umask_is_0022(engine: Engine, mask: int) -> None:
    script = ["sh", "-c", "umask; touch /tmp/x; stat -c %a /tmp/x"]
    words = ["run", "--rm", "--rootfs", engine.rootfs, *script]
    assert engine.ok(*words, umask=mask) == "0022\n644\n"
    engine.detach("--name", "n")
    assert engine.ok("exec", "n", *script, umask=mask) == "0022\n644\n"


def test_process_cannot_be_dumped_by_its_neighbours_while_it_is_ours(engine: Engine) -> None:
    """After execve it can: the mark of the interpreter is gone with it."""
    engine.detach("--name", "n", "-u", "app")
    assert os.stat(f"/proc/{engine.pid('n')}/environ").st_uid == 1000


# Descriptors

SHOW_DESCRIPTORS = ["sh", "-c", "ls /proc/$$/fd; true"]


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[list[int]]:
    """Twenty open directories of the host, with a canary in each, that children inherit."""
    (tmp_path / "canary").touch()
    descriptors = [os.open(tmp_path, os.O_RDONLY) for _ in range(20)]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_no_descriptor_of_the_caller_arrives_in_run(engine: Engine, planted: list[int]) -> None:
    words = ["run", "--rm", "--rootfs", engine.rootfs, *SHOW_DESCRIPTORS]
    assert engine.ok(*words, pass_fds=planted).split() == ["0", "1", "2"]


def test_no_descriptor_of_the_caller_arrives_in_a_detached_run(
    engine: Engine, planted: list[int]
) -> None:
    words = ["run", "-d", "--name", "d", "--rootfs", engine.rootfs, "sleep", "100"]
    engine.ok(*words, pass_fds=planted)
    assert sorted(os.listdir(f"/proc/{engine.pid('d')}/fd")) == ["0", "1", "2"]


def test_no_descriptor_of_the_caller_arrives_in_exec(engine: Engine, planted: list[int]) -> None:
    engine.detach("--name", "n")
    for flags in ([], ["-i"]):
        shown = engine.ok("exec", *flags, "n", *SHOW_DESCRIPTORS, pass_fds=planted)
        assert shown.split() == ["0", "1", "2"]


def test_command_starts_with_closed_streams_open_on_null(engine: Engine) -> None:
    def close() -> None:
        for descriptor in (0, 1, 2):
            os.close(descriptor)

    result = f"{engine.base}/shown"
    os.mkdir(result)
    script = "ls -l /proc/1/fd > /out/fds; true"
    words = ["run", "--rm", "-v", f"{result}:/out", "--rootfs", engine.rootfs, "sh", "-c", script]
    engine.run(*words, preexec_fn=close, check=True)
    with open(f"{result}/fds", encoding="utf-8") as file:
        names = {line.split()[8]: line.split(" -> ")[1].strip() for line in file if "->" in line}
    assert names["0"] == "/dev/null"
    assert set(names) - {"10"} == {"0", "1", "2"}, "10 is the shell's own, for the redirection"


# The working directory (CVE-2024-21626)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_working_directory_cannot_be_a_descriptor_of_the_host(
    engine: Engine, planted: list[int], verb: str
) -> None:
    """Whatever descriptors the process has on its way, none leads out of the container."""
    engine.detach("--name", "n")
    refused = 0
    for number in [*range(3, 12), planted[0], planted[-1]]:
        flags = ["-w", f"/proc/self/fd/{number}"]
        start = ["run", "--rm", *flags, "--rootfs", engine.rootfs]
        words = start if verb == "run" else ["exec", *flags, "n"]
        done = engine.run(*words, "sh", "-c", "pwd; ls . ../canary*", pass_fds=planted)
        assert "canary\n" not in done.stdout
        assert done.returncode in (125, 126) or done.stdout.startswith(("/\n", "/proc/")), done
        refused += done.returncode in (125, 126)
    assert refused, "not one of them was a directory of the host"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_command_cannot_be_a_program_of_the_host(
    engine: Engine, planted: list[int], verb: str
) -> None:
    engine.detach("--name", "n")
    start = ["run", "--rm", "--rootfs", engine.rootfs] if verb == "run" else ["exec", "n"]
    for number in (3, 4, 5, planted[0], planted[-1]):
        path = f"/proc/self/fd/{number}/../../../../../bin/busybox"
        done = engine.run(*start, path, "ls", pass_fds=planted)
        assert done.returncode in (126, 127), done
        assert done.stdout == ""


# The session keyring

KEYRING = """
import ctypes
call = ctypes.CDLL(None).syscall
buffer = ctypes.create_string_buffer(200)
session = call({keyctl}, 0, -3, 0)
call({keyctl}, 6, session, buffer, 200)
print(buffer.value.decode())
"""


def test_session_keyring_is_the_containers_own(engine: Engine) -> None:
    program = KEYRING.format(keyctl=kernel.SYS_keyctl)
    python = os.path.realpath(sys.executable)
    container_id = engine.ok(
        "run", "-d", "--name", "k", "--rootfs", "/", python, "-c", program
    ).strip()
    engine.ok("wait", "k")
    kind, uid, gid, permissions, name = engine.ok("logs", "k").strip().split(";")
    assert (kind, uid, gid, name) == ("keyring", "0", "0", f"_ses.{container_id}")
    assert int(permissions, 16) & 0xFFFF == 0, "nobody else may even see it"
