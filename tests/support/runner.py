"""An engine of one's own: private state directories, and nothing left at the end."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from tests.support import census
from tests.support.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MNT_DETACH = 2
_numbers = itertools.count(1)


def scratch() -> str:
    """A directory on a real disk: overlayfs refuses an upper layer on most other file systems."""
    return os.environ.get("MC_TEST_DIR", "/var/tmp")


def program() -> list[str]:
    """The command under test: $MC_BINARY (words), or the package in the checkout."""
    binary = os.environ.get("MC_BINARY")
    return binary.split() if binary else [sys.executable, "-m", "minicontainer"]


def wait_until(condition: Callable[[], Any], what: str = "it", seconds: float = 10.0) -> Any:
    """The first true value of `condition`, asked again until `seconds` are over."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


class Engine:
    """minicontainer with state directories of its own below a short path.

    `base` is the directory of all its files, `root` and `runroot` the two state directories,
    `rootfs` the tree that `sh` and `detach` use.
    """

    def __init__(
        self,
        rootfs: str,
        *,
        command: Sequence[str] | None = None,
        env: dict[str, str] | None = None,
        owner: int = 0,
    ) -> None:
        self.rootfs = rootfs
        self.base = os.path.join(scratch(), f"mc-{os.getpid()}-{next(_numbers)}")
        self.root = os.path.join(self.base, "lib")
        self.runroot = os.path.join(self.base, "run")
        self.mark = f"MINICONTAINER_TEST={os.path.basename(self.base)}."
        self.command = list(command or program())
        os.mkdir(self.base, 0o755)
        os.chown(self.base, owner, owner)
        name, _, value = self.mark.partition("=")
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": TOP,
            "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
            **(env or {}),
            name: value,
        }
        self._open: list[subprocess.Popen[Any] | Terminal] = []
        self._census = census.take(self.roots, [self.mark])

    # -- running the program

    @property
    def roots(self) -> list[str]:
        return [self.root, self.runroot]

    def argv(self, *arguments: str) -> list[str]:
        """The whole command line for a verb and its arguments."""
        return [*self.command, "--root", self.root, "--runroot", self.runroot, *arguments]

    def run(
        self,
        *arguments: str,
        input: str | bytes | None = None,
        timeout: float = 60,
        check: bool = False,
        env: dict[str, str] | None = None,
        text: bool = True,
        **more: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """One command to its end, with stdout and stderr as text (or bytes: `text=False`).

        `env` is added to the environment; `check` fails the test with the error text. Output
        that is not UTF-8 comes as surrogates.
        """
        __tracebackhide__ = True
        if input is None:
            more.setdefault("stdin", subprocess.DEVNULL)
        elif isinstance(input, str):
            input = input.encode()
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run(
            self.argv(*arguments),
            input=input,
            timeout=timeout,
            env={**self.env, **(env or {})},
            check=False,
            **more,
        )
        result: subprocess.CompletedProcess[Any] = done
        if text:
            result.stdout, result.stderr = (
                stream if stream is None else stream.decode("utf-8", "surrogateescape")
                for stream in (done.stdout, done.stderr)
            )
        if check:
            shown = f"{' '.join(arguments)}: {result.stderr!r}, stdout {result.stdout!r}"
            assert result.returncode == 0, f"exit {result.returncode} from {shown}"
        return result

    def ok(self, *arguments: str, **more: Any) -> str:
        """stdout of a command that must succeed."""
        __tracebackhide__ = True
        return str(self.run(*arguments, check=True, **more).stdout)

    def fails(self, code: int, *arguments: str, **more: Any) -> str:
        """stderr of a command that must end with `code`, in one clear line."""
        __tracebackhide__ = True
        result = self.run(*arguments, **more)
        shown = f"{' '.join(arguments)}: stderr {result.stderr!r}, stdout {result.stdout!r}"
        assert result.returncode == code, f"exit {result.returncode}, not {code}, from {shown}"
        assert "Traceback" not in result.stderr, shown
        errors = re.findall(r"^Error: .+$", result.stderr, re.MULTILINE)
        assert len(errors) == 1, f"not one line of error from {shown}"
        return str(result.stderr)

    def sh(self, script: str, *flags: str, **more: Any) -> str:
        """stdout of `run --rm FLAGS --rootfs ROOTFS sh -c SCRIPT`, which must succeed."""
        __tracebackhide__ = True
        return self.ok("run", "--rm", *flags, "--rootfs", self.rootfs, "sh", "-c", script, **more)

    def detach(self, *flags: str, command: Sequence[str] = ("sleep", "1000")) -> str:
        """The id of a new container that runs `command` in the background."""
        __tracebackhide__ = True
        answer = self.ok("run", "-d", *flags, "--rootfs", self.rootfs, *command)
        assert re.fullmatch(r"[0-9a-f]{64}\n", answer), answer
        return answer.strip()

    def popen(self, *arguments: str, **more: Any) -> subprocess.Popen[Any]:
        """The command, started; its three streams are pipes of bytes unless told otherwise."""
        for stream in ("stdin", "stdout", "stderr"):
            more.setdefault(stream, subprocess.PIPE)
        env = {**self.env, **more.pop("env", {})}
        process: subprocess.Popen[Any] = subprocess.Popen(self.argv(*arguments), env=env, **more)
        self._open.append(process)
        return process

    def pty(self, *arguments: str, **more: Any) -> Terminal:
        """The command on a terminal of its own."""
        terminal = Terminal(self.argv(*arguments), env={**self.env, **more.pop("env", {})}, **more)
        self._open.append(terminal)
        return terminal

    # -- looking

    def inspect(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ok("inspect", name))[0]
        return answer

    def status(self, name: str) -> str:
        """`running`, `exited`… as inspect says it."""
        return str(self.inspect(name)["State"]["Status"])

    def pid(self, name: str) -> int:
        """The host's number of the container's first process; 0 if it does not run."""
        return int(self.inspect(name)["State"]["Pid"])

    def wait_for(self, name: str, status: str, seconds: float = 10.0) -> None:
        """Return once there is such a container and it has the status."""

        def has_it() -> bool:
            found = self.run("inspect", "--format", "{{.State.Status}}", name)
            return str(found.stdout) == f"{status}\n"

        wait_until(has_it, f"{name}: {status}", seconds)

    def log(self, name: str) -> list[tuple[str, str]]:
        """(stream, text) of each entry of the container's log file, read without the program."""
        path = os.path.join(self.root, "names", name)
        container_id = os.readlink(path) if os.path.islink(path) else name
        path = os.path.join(self.root, "containers", container_id, f"{container_id}-json.log")
        with open(path, encoding="utf-8") as file:
            entries = [json.loads(line) for line in file if line.endswith("\n")]
        return [(entry["stream"], entry["log"]) for entry in entries]

    def wait_for_output(self, name: str, text: str, seconds: float = 10.0) -> None:
        """Return once the container, of this name or whole id, has written `text` to its log."""
        wait_until(
            lambda: text in "".join(line for _, line in self.log(name)),
            f"{name}: output {text!r}",
            seconds,
        )

    def processes(self) -> dict[int, str]:
        """pid -> command of every process that belongs to this engine, monitors included."""
        return census.processes(self.roots, [self.mark])

    def containers(self) -> list[str]:
        """The ids that have a record on disk."""
        path = os.path.join(self.root, "containers")
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    # -- the end

    def leftovers(self, seconds: float = 2.0) -> list[str]:
        """What differs from the census taken when the engine was made, after a grace time."""
        return census.settle(self._census, self.roots, [self.mark], seconds)

    def close_streams(self) -> None:
        """End the commands that a test left running in the foreground."""
        while self._open:
            process = self._open.pop()
            if isinstance(process, Terminal):
                process.close()
                continue
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            process.wait()

    def close(self) -> list[str]:
        """Remove containers and images, then by force what is left; returns the census' lines.

        An empty list means that the engine cleaned up after itself. May be repeated.
        """
        if not os.path.exists(self.base):
            return []
        self.close_streams()
        failure = []
        try:
            if self.containers():
                done = self.run("rm", "--all", "--force")
                if done.returncode != 0:
                    failure.append(f"rm --all --force: exit {done.returncode}: {done.stderr}")
            if os.path.exists(os.path.join(self.root, "images", "index.json")):
                done = self.run("image", "prune", "--all", "--force")
                if done.returncode != 0:
                    failure.append(f"image prune: exit {done.returncode}: {done.stderr}")
        except subprocess.TimeoutExpired as error:
            failure.append(str(error))
        finally:
            left = failure + self.leftovers()
            self._destroy(left)
        return left

    def _destroy(self, left: list[str]) -> None:
        """Kill, unmount and delete what is ours, without the help of the program."""
        for _ in range(50):
            pids = self.processes()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                break
            time.sleep(0.02)
        libc = ctypes.CDLL(None)
        for line in reversed(census.mounts([self.base])):
            libc.umount2(os.fsencode(line.split(" ")[0]), MNT_DETACH)
        for line in left:
            kind, _, directory = line.partition(": left behind: ")
            if kind == "cgroups":
                for inner, _, _ in os.walk(directory, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(inner)
        if census.mounts([self.base]):
            raise RuntimeError(f"cannot unmount everything below {self.base}")
        shutil.rmtree(self.base)
