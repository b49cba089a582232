"""The caller's side of a running process: our streams, terminal, signals, and the detach keys.

`Caller` is put in front of a target, which is a child's streams or a connection to a monitor;
`attach` does that.  Nothing here knows which it is.
"""

from __future__ import annotations

import os

from minicontainer import kernel
from minicontainer.engine import polling, streams
from minicontainer.errors import UsageError
from minicontainer.primitives import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Protocol

    class Target(Protocol):
        """What the caller's input goes to."""

        @property
        def takes_input(self) -> bool: ...
        @property
        def input_full(self) -> bool: ...
        def feed(self, data: bytes) -> None: ...
        def end_input(self) -> None: ...
        def resize(self, rows: int, columns: int) -> None: ...


DETACH_KEYS = "ctrl-p,ctrl-q"
# What `Caller.left` is after these.
DETACHED = 0


def parse_detach_keys(text: str) -> bytes:
    """The bytes typed for "ctrl-p,ctrl-q", "a,b,ctrl-]"; "" is none, so that nothing detaches.

    Raises UsageError for anything else.
    """
    keys = bytearray()
    for name in text.split(",") if text else ():
        letter = name[5:].upper() if name[:5].lower() == "ctrl-" else ""
        if len(name) == 1 and name.isascii():
            keys.append(ord(name))
        elif len(letter) == 1 and "@" <= letter <= "_":
            keys.append(ord(letter) - ord("@"))
        elif name.upper() == "DEL":
            keys.append(127)
        else:
            raise UsageError(
                f'invalid detach keys "{text}": unknown key "{name}"',
                hint="a comma list of characters and ctrl-X, X a letter or one of @[\\]^_",
            )
    return bytes(keys)


class DetachKeys:
    """Finds the detach keys in what is typed; holds back what may become them."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what goes on to the container, whether the keys are complete); the rest is dropped."""
        if not self._keys or (not self._held and self._keys[0] not in data):
            return data, False
        passed = bytearray()
        for byte in data:
            self._held += bytes((byte,))
            while not self._keys.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                self._held = b""
                return bytes(passed), True
        return bytes(passed), False


class Caller:
    """Our own streams, terminal and signals, in front of a target.

    In a `with` block the terminal is raw, if a terminal is what `target` has (`tty`), and the
    `signals`, WINCH and CONT are ours: `forward` passes on the former, and without it those that
    terminate make us leave.  detach_keys: None for the default, "" for off; only looked for in
    what a terminal sends.

    `left` is None as long as the caller stays, DETACHED after the keys, else the number of the
    signal which ends us; `follow_signal` then lets it.
    """

    def __init__(
        self,
        loop: polling.Loop,
        target: Target,
        *,
        tty: bool,
        stdin: bool,
        detach_keys: str | None,
        signals: Iterable[int],
        forward: Callable[[int], None] | None,
        reader_gone: Callable[[int], None],
        child_changed: Callable[[], None] = polling.nothing,
    ) -> None:
        self._loop = loop
        self._target = target
        self._forward = forward
        self._child_changed = child_changed
        self._from_terminal = stdin and os.isatty(0)
        keys = parse_detach_keys(DETACH_KEYS if detach_keys is None else detach_keys)
        self._detach = DetachKeys(keys if self._from_terminal else b"")
        self._window_fd = terminal.of_streams() if tty else -1
        self._raw = terminal.raw(0) if tty and self._from_terminal else None
        self._wanted = {*signals, kernel.SIGWINCH, kernel.SIGCONT}
        self._signals: polling.Signals | None = None
        self._finishing = False
        self.left: int | None = None
        self.local = streams.Local(
            loop,
            streams.LocalStreams(0 if stdin else -1, 1, 2),
            take=self._typed,
            ended=target.end_input,
            may_take=self._may_take,
            broken=reader_gone,
        )

    def __enter__(self) -> None:
        # Signals first: from the raw mode on, none may end us before the terminal is given back.
        self._signals = polling.Signals(self._loop, self._wanted, self._signalled)
        if self._raw is not None:
            self._raw.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._raw is not None:
            self._raw.__exit__(kind, failure, traceback)
        self.local.close()
        if self._signals is not None:
            self._signals.close()

    @property
    def from_terminal(self) -> bool:
        """Whether our input is a terminal."""
        return self._from_terminal

    def show_size(self, *, redraw: bool = False) -> None:
        """Tell the target the size of our terminal.

        redraw: twice, as a program draws its screen again only when the size has changed.
        """
        found = terminal.size(self._window_fd)
        if found is None:
            return
        if redraw:
            self._target.resize(found[0] + 1, found[1])
        self._target.resize(*found)

    def finish(self) -> None:
        """Wait until our output is written, unless a signal or its reader ends that."""
        self._finishing = True
        self.local.stop_input()
        while not self.local.idle and not self.left:
            self._loop.turn()

    def leave(self, signal: int) -> None:
        """Have us end by this signal."""
        self.left = signal

    def _may_take(self) -> bool:
        return self._target.takes_input and not self._target.input_full and self.left is None

    def _typed(self, data: bytes) -> None:
        passed, detached = self._detach.feed(data)
        if passed:
            self._target.feed(passed)
        if detached:
            self.left = DETACHED

    def _signalled(self, signal: int) -> None:
        if signal == kernel.SIGCHLD:
            self._child_changed()
            return
        if signal == kernel.SIGCONT and self._raw is not None:
            # We were stopped, and whoever had the terminal meanwhile changed its modes.
            self._raw.renew()
        if signal in (kernel.SIGWINCH, kernel.SIGCONT):
            self.show_size()
        if signal == kernel.SIGWINCH:
            return
        if self._forward is not None and not self._finishing:
            try:
                self._forward(signal)
            except ProcessLookupError:
                pass
        elif polling.is_terminating(signal):
            self.left = signal


def follow_signal(signal: int) -> None:
    """Let a signal have its default effect on us, now that the terminal has its modes again."""
    kernel.reset_signal(signal)
    kernel.kill(os.getpid(), signal)
