"""A program on a terminal of its own, driven as a person would: read, type, resize."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence


class Terminal:
    """`command` runs as the leader of a session on a new pty.

    `output` is all text it has written so far; both sides of the pty stay open until `close`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        rows: int = 24,
        columns: int = 80,
        stdout: int | None = None,
        **more: Any,
    ) -> None:
        self.master, self.slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.output = ""
        self._seen = 0
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            stderr=self.slave,
            env=env,
            start_new_session=True,
            preexec_fn=self._take,
            **more,
        )

    def _take(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, rows: int, columns: int) -> None:
        """A new window size; the kernel sends SIGWINCH to the foreground group."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        os.write(self.master, text.encode("utf-8", "surrogateescape"))

    def line(self, text: str) -> None:
        """Type a line and the return key."""
        self.send(text + "\r")

    def _read(self, seconds: float) -> bool:
        """Add what arrives within `seconds` to the output; False if nothing did."""
        ready, _, _ = select.select([self.master], [], [], max(seconds, 0))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.output += data.decode("utf-8", "surrogateescape")
        return bool(data)

    def expect(self, pattern: str, seconds: float = 15.0) -> re.Match[str]:
        """Wait until the regular expression `pattern` matches what came since the last match."""
        __tracebackhide__ = True
        deadline = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.output, self._seen)
            if match:
                self._seen = match.end()
                return match
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} within {seconds} s in {self.output!r}")
            ended = self.process.poll() is not None
            if not self._read(0 if ended else 0.1) and ended:
                raise AssertionError(
                    f"no {pattern!r}; it ended with {self.process.returncode}: {self.output!r}"
                )

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code (negative: the signal that killed it); all output has been read."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {seconds} s: {self.output!r}")
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    def is_raw(self) -> bool:
        """Whether the terminal neither echoes nor waits for whole lines."""
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def is_restored(self) -> bool:
        """Whether the settings are those the program found."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        """Kill the program if it still runs, and free the pty."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for descriptor in (self.master, self.slave):
            if descriptor >= 0:
                os.close(descriptor)
        self.master = self.slave = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
