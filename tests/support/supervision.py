"""Starting the program `supervised` and reading what it reported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

from tests.support.runner import TOP, wait_until
from tests.support.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


class Run:
    """`supervised` programs that share a directory for their log and their report."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.report_path = str(base / "report")
        self.log = str(base / "log")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.terminals: list[Terminal] = []

    def argv(self, mode: str, command: str = "", **settings: Any) -> list[str]:
        settings = {"mode": mode, "command": command, "log": self.log, **settings}
        module = "tests.support.supervised"
        return [sys.executable, "-m", module, self.report_path, json.dumps(settings)]

    def start(
        self, mode: str, command: str = "", *, popen: dict[str, Any] | None = None, **settings: Any
    ) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(
            self.argv(mode, command, **settings), cwd=TOP, **{**pipes, **(popen or {})}
        )
        self.processes.append(process)
        return process

    def on_terminal(self, mode: str, command: str = "", **settings: Any) -> Terminal:
        """The same with a terminal as all three streams."""
        settings = {"tty": True, "stdin": True, **settings}
        terminal = Terminal(self.argv(mode, command, **settings), cwd=TOP)
        self.terminals.append(terminal)
        return terminal

    def run(
        self, mode: str, command: str, *, input: bytes = b"", **settings: Any
    ) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr)"""
        process = self.start(mode, command, **settings)
        out, error = process.communicate(input, timeout=30)
        return process.returncode, out, error

    def facts(self, kind: str) -> list[Any]:
        """What was reported of a kind, without that word."""
        if not os.path.exists(self.report_path):
            return []
        with open(self.report_path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        return [line[1:] for line in lines if line[0] == kind]

    def wait_for(self, kind: str, count: int = 1) -> list[Any]:
        wait_until(lambda: len(self.facts(kind)) >= count, f"{count} {kind}")
        return self.facts(kind)

    def logged(self, stream: str = "stdout") -> str:
        with open(self.log, encoding="utf-8") as file:
            entries = [json.loads(line) for line in file]
        return "".join(entry["log"] for entry in entries if entry["stream"] == stream)

    def close(self) -> None:
        """Kill everything that still runs."""
        for (pid,) in self.facts("launch"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        for terminal in self.terminals:
            terminal.close()
