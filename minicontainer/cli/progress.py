"""How far a pull is: a bar for each layer on a terminal, elsewhere one line for each state.

A `Progress` is called with the events of `image.pull`: `id` (absent: a line of its own), `status`,
and `current` and `total` where bytes are counted.  Words are Docker's.
"""

from __future__ import annotations

import os
import time

from minicontainer import kernel
from minicontainer.cli import output, tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Event = dict[str, Any]

_BAR_CELLS = 50
_NARROWEST_BAR = 10
_SPEED_SECONDS = 3.0


def to(descriptor: int) -> Progress:
    """What shows progress on a descriptor, in the way that suits it."""
    return Bars(descriptor) if os.isatty(descriptor) else Lines(descriptor)


class Progress:
    """Called with every event."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, event: Event) -> None:
        raise NotImplementedError

    def _write(self, text: str) -> None:
        output.write(output.encode(text), self._descriptor)


class Lines(Progress):
    """Each state of each layer once, a line each."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._last: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        name, status = str(event.get("id") or ""), str(event["status"])
        if name and self._last.get(name) == status:
            return
        self._last[name] = status
        self._write(f"{_plain(f'{name}: {status}' if name else status)}\n")


class Bars(Progress):
    """A line for each layer, written over as it gets on.

    rows, columns: of the terminal, asked of it when absent.
    """

    def __init__(self, descriptor: int, rows: int = 0, columns: int = 0) -> None:
        super().__init__(descriptor)
        self._fixed = (rows, columns)
        self._rows: dict[str, int] = {}
        self._speeds: dict[str, _Speed] = {}

    def __call__(self, event: Event) -> None:
        name, status = str(event.get("id") or ""), str(event["status"])
        if not name or status.startswith("Pulling from "):
            # What follows is below: the lines above it are as they will be.
            self._rows.clear()
            self._write(f"{_plain(f'{name}: {status}' if name else status)}\r\n")
            return
        rows, columns = self._size()
        text = tables.shorten(
            _plain(f"{name}: {status}{self._counts(event, columns)}"), columns - 1
        )
        if name not in self._rows:
            self._rows[name] = len(self._rows)
            self._write(f"{text}\r\n")
            return
        up = len(self._rows) - self._rows[name]
        if up < rows:  # one that has left the screen stays as it was
            self._write(f"\x1b[{up}A\r\x1b[2K{text}\r\x1b[{up}B")

    def _counts(self, event: Event, columns: int) -> str:
        """Bar, bytes and speed, where something is counted."""
        current, total = event.get("current"), event.get("total")
        if current is None or not total:
            return ""
        name, status = str(event["id"]), str(event["status"])
        speed = self._speeds.get(name)
        if speed is None or speed.status != status:
            speed = self._speeds[name] = _Speed(status, current)
        numbers = f"{tables.decimal_size(current)}/{tables.decimal_size(total)}"
        rate = speed.at(current)
        if rate:
            numbers += f" {tables.decimal_size(rate)}/s"
        room = columns - len(f"{name}: {status}  []  ") - len(numbers) - 1
        if room < _NARROWEST_BAR:
            return f" {numbers}"
        return f" {_bar(current, total, min(room, _BAR_CELLS))} {numbers}"

    def _size(self) -> tuple[int, int]:
        rows, columns = self._fixed
        if not columns:
            try:
                rows, columns = kernel.get_window_size(self._descriptor)
            except OSError:
                pass
        return rows or 24, max(columns or 80, 20)


class _Speed:
    """Bytes a second of one layer in one state, over the last seconds."""

    def __init__(self, status: str, current: int) -> None:
        self.status = status
        self._marks = [(time.monotonic(), current)]

    def at(self, current: int) -> float:
        now = time.monotonic()
        self._marks.append((now, current))
        while len(self._marks) > 2 and now - self._marks[0][0] > _SPEED_SECONDS:
            del self._marks[0]
        then, before = self._marks[0]
        return (current - before) / (now - then) if now - then > 0.05 else 0.0


def _bar(current: int, total: int, cells: int) -> str:
    done = min(cells, current * cells // total)
    return f"[{'=' * done + '>' if done < cells else '=' * cells:<{cells}}]"


def _plain(text: str) -> str:
    return output.printable(text, keep="")
