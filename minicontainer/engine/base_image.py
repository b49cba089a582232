"""The image that a new container stands on: found in the store, or pulled as `--pull` says."""

from __future__ import annotations

from minicontainer import steps
from minicontainer.errors import NotFound
from minicontainer.image import reference
from minicontainer.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.image.store import Image
    from minicontainer.paths import Paths


def open_store(paths: Paths) -> Store:
    """The images below `paths`."""
    store = Store(paths)
    store.prepare()
    return store


def resolve(store: Store, options: dict[str, Any]) -> Image:
    """The image of `options`. Raises NotFound with --pull never, and what a pull raises."""
    text, policy = options["image"], options.get("pull") or "missing"
    if policy != "always":
        try:
            return store.find(text)
        except NotFound:
            if policy == "never":
                raise
    wanted = reference.parse(text)
    if policy == "missing":
        steps.notice(f"Unable to find image '{reference.familiar(wanted)}' locally")
    from minicontainer.engine import images

    def progress(event: dict[str, Any]) -> None:
        # Each state once, a line, on standard error; the bars are those of `pull`.
        if not options.get("quiet") and "current" not in event:
            name = f"{event['id']}: " if event.get("id") else ""
            steps.notice(f"{name}{event['status']}")

    return images.pull(store.paths, text, options.get("platform"), progress)
