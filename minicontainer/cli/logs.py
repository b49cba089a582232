"""`logs`: what a container has written."""

from __future__ import annotations

from minicontainer.cli import containers, output, quantities, times
from minicontainer.cli.options import Command, Option, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_STREAMS = {"stdout": output.STDOUT, "stderr": output.STDERR}
_BATCH_BYTES = 1 << 16


def logs(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print the log: each stream to ours of the same name."""
    from minicontainer.engine import logview

    entries = logview.entries(
        containers.find(paths, arguments[0]),
        follow=flags["follow"],
        tail=flags["tail"],
        since=flags["since"],
        until=flags["until"],
    )
    writer = _Writer(1 if flags["follow"] else _BATCH_BYTES)
    # A stream's line may come in several pieces; the time is shown where a line begins.
    begins = dict.fromkeys(_STREAMS, True)
    for stream, data, stamp in entries:
        stream = stream if stream in _STREAMS else "stdout"
        if flags["timestamps"] and begins[stream]:
            data = stamp.encode() + b" " + data
        begins[stream] = data.endswith(b"\n")
        writer.add(_STREAMS[stream], data)
    writer.flush()
    return 0


class _Writer:
    """Joins writes to one descriptor until there are `limit` bytes, keeping the order of both."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.descriptor = output.STDOUT
        self.pieces: list[bytes] = []
        self.size = 0

    def add(self, descriptor: int, data: bytes) -> None:
        if descriptor != self.descriptor:
            self.flush()
            self.descriptor = descriptor
        self.pieces.append(data)
        self.size += len(data)
        if self.size >= self.limit:
            self.flush()

    def flush(self) -> None:
        output.write(b"".join(self.pieces), self.descriptor)
        self.pieces.clear()
        self.size = 0


def _tail(text: str) -> int | None:
    if text == "all":
        return None
    try:
        count = quantities.integer(-1, 10**12)(text)
    except ValueError:
        raise ValueError("expected a number of lines, or all") from None
    return None if count < 0 else count


COMMANDS = (
    Command(
        "logs",
        "[OPTIONS] CONTAINER",
        "Print the output of a container",
        (
            flag("-f, --follow", "go on until the container ends"),
            flag("-t, --timestamps", "the time (UTC) before each line"),
            Option("-n, --tail", _tail, "only the last N lines, or all", "N"),
            Option("--since", times.nanoseconds, "from then on (RFC 3339, or 10m: ago)", "TIME"),
            Option("--until", times.nanoseconds, "up to this time", "TIME"),
            flag("--details", "attributes of the log's driver (ours has none)"),
        ),
        perform=logs,
        minimum=1,
        maximum=1,
    ),
)
