"""Threads that bring layers: each fetches a blob, checks it, unpacks it, and takes the next.

Inflating, hashing and waiting for the network give up the interpreter's lock, so threads do.  The
thread that started them waits, reports what they do, and stops them all if one fails.
"""

from __future__ import annotations

import queue
import threading
import time

from minicontainer.errors import DigestMismatch
from minicontainer.image.registry import Cancelled, Client, failures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.image.blobs import BlobWriter
    from minicontainer.image.registry.wire import Response
    from minicontainer.image.store import Store

CHUNK_BYTES = 256 << 10
MOST_RETRIES = 5
# So much progress forgives earlier failures.
FORGIVEN_BYTES = 1 << 20
_REPORT_SECONDS = 0.1
_STOP_SECONDS = 5.0
_LONGEST_PAUSE = 30.0


def fetch(
    client: Client, digest: str, size: int, start: int, write: Callable[[memoryview], object]
) -> None:
    """Hand the bytes of a blob from `start` on to `write`, through failures that pass.

    Raises DigestMismatch once there are more than `size`, RegistryError, Cancelled.
    """
    view = memoryview(bytearray(min(CHUNK_BYTES, size + 1)))
    done = forgiven = start
    retries = 0
    pause: float = client.wire.settings.retry_seconds
    while True:
        with client.blob(digest, size, done) as response:
            done, failure = _copy(response, view, digest, size, done, write)
        if failure is None:
            return
        client.wire.check()
        if done - forgiven >= FORGIVEN_BYTES:
            retries, forgiven = 0, done
            pause = client.wire.settings.retry_seconds
        retries += 1
        if not failures.is_passing(failure) or retries > MOST_RETRIES:
            raise failures.from_exception("GET", response.url, failure) from failure
        client.wire.pause(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _copy(
    response: Response,
    view: memoryview,
    digest: str,
    size: int,
    done: int,
    write: Callable[[memoryview], object],
) -> tuple[int, Exception | None]:
    """How much of the blob is there now, and what ended it early."""
    while True:
        try:
            count = response.readinto(view)
        except failures.BROKEN as failure:
            return done, failure
        if not count:
            return done, failures.early_end(size - done) if done < size else None
        if done + count > size:
            raise DigestMismatch(f"{digest}: more comes than the {size} bytes its manifest says")
        write(view[:count])
        done += count


class Downloads:
    """Layers on their way into the store."""

    def __init__(
        self,
        client: Client,
        store: Store,
        layers: list[tuple[dict[str, Any], str]],
        parallel: int,
    ) -> None:
        self._client = client
        self._store = store
        self._layers = iter(layers)
        self._parallel = min(parallel, len(layers))
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._failures: list[BaseException] = []

    def run(self, progress: Callable[[dict[str, Any]], None]) -> None:
        """Returns when every layer is unpacked; raises what the first thread to fail raised."""
        threads = [
            threading.Thread(target=self._work, name=f"layer-{number}", daemon=True)
            for number in range(self._parallel)
        ]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                event = self._events.get()
                if event is None:
                    running -= 1
                elif not self._failures:
                    progress(event)
        finally:
            if running:
                self._client.wire.cancel()
            deadline = time.monotonic() + _STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._failures:
            raise self._failures[0]

    def _work(self) -> None:
        try:
            while not self._client.wire.cancelled.is_set():
                with self._lock:
                    task = next(self._layers, None)
                if task is None:
                    break
                self._bring(*task)
        except Cancelled:
            pass
        except BaseException as failure:
            with self._lock:
                # Those that fail because this one stopped them come later.
                if not self._client.wire.cancelled.is_set():
                    self._failures.append(failure)
            self._client.wire.cancel()
        finally:
            self._events.put(None)

    def _bring(self, layer: dict[str, Any], diff_id: str) -> None:
        name = layer["digest"][7:19]
        resumed = self._attempt(layer)
        if resumed and not self._store.has_blob(layer["digest"], layer["size"]):
            # What an earlier pull left was damaged, and its writer has dropped it.
            self._attempt(layer, last=True)
        self._say(name, "Download complete")
        report = _Report(self, name, "Extracting", layer["size"])
        self._store.unpack(layer["digest"], layer["mediaType"], diff_id, report.at, self._wait)
        self._say(name, "Pull complete")

    def _attempt(self, layer: dict[str, Any], *, last: bool = False) -> bool:
        """Whether the blob was continued; with `last` a wrong digest is an error even then."""
        digest, size = layer["digest"], layer["size"]
        resumed = False
        try:
            with self._store.writer(digest, size, self._wait) as writer:
                if not writer.present:
                    start = writer.offset()
                    resumed = start > 0
                    self._receive(writer, layer, start)
                    self._say(digest[7:19], "Verifying Checksum")
                    writer.finish()
        except DigestMismatch:
            if last or not resumed:
                raise
        return resumed

    def _wait(self) -> None:
        """Called while another process works at what this thread wants."""
        self._client.wire.check()
        # That process may be waiting for what is finished here and locked until it is committed.
        if self._store.layers.staged():
            self._store.layers.sync()
            self._store.layers.commit()
        if self._store.blobs.staged():
            self._store.blobs.commit(synced=False)

    def _receive(self, writer: BlobWriter, layer: dict[str, Any], start: int) -> None:
        report = _Report(self, layer["digest"][7:19], "Downloading", layer["size"])
        done = start

        def write(view: memoryview) -> None:
            nonlocal done
            writer.write(view)
            done += len(view)
            report.at(done)

        report.at(start)
        if start < layer["size"] or not start:
            fetch(self._client, layer["digest"], layer["size"], start, write)

    def _say(self, name: str, status: str, **counts: int) -> None:
        self._events.put({"id": name, "status": status, **counts})

    def report(self, name: str, status: str, current: int, total: int) -> None:
        """Tell the waiting thread how far a layer is. Raises Cancelled if it no longer waits."""
        self._client.wire.check()
        self._say(name, status, current=current, total=total)


class _Report:
    """Progress of one layer, told ten times a second at most."""

    def __init__(self, downloads: Downloads, name: str, status: str, total: int) -> None:
        self._downloads = downloads
        self._name = name
        self._status = status
        self._total = total
        self._next = 0.0

    def at(self, current: int) -> None:
        now = time.monotonic()
        if now >= self._next or current >= self._total:
            self._next = now + _REPORT_SECONDS
            self._downloads.report(self._name, self._status, current, self._total)
