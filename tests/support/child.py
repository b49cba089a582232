"""Running a function in a forked child, for acts that cannot be undone."""

from __future__ import annotations

import json
import os
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def in_child(act: Callable[[], Any]) -> Any:
    """What `act()` returns (JSON) when run in a child. AssertionError with its traceback."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            report = {"result": act()}
        except BaseException:
            report = {"failure": traceback.format_exc()}
        try:
            os.write(write_fd, json.dumps(report).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    report = json.loads(answer)
    assert "failure" not in report, report["failure"]
    return report["result"]


def status_masks() -> dict[str, int]:
    """The hexadecimal masks of /proc/self/status: CapBnd, CapEff, CapPrm, CapInh, CapAmb…"""
    # As bytes: the child may have become a user who cannot read Python's own codecs.
    with open("/proc/self/status", "rb") as file:
        lines = [line.split(b":", 1) for line in file]
    return {name.decode(): int(value, 16) for name, value in lines if name.startswith(b"Cap")}
