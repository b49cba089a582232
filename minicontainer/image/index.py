"""The entries of index.json as data: which manifest has which names.

One entry a name; an image that has lost its last one keeps an entry without.  Pure functions: what
is on disk is `store`'s.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Document = dict[str, Any]

REF_NAME = "org.opencontainers.image.ref.name"
# `docker.io/library/x@sha256:…`, several separated by commas: what registries call the image.
REPO_DIGEST = "org.minicontainer.repo-digest"


def name_of(entry: Document) -> str:
    """The canonical name in an entry of the index, "" if it has none."""
    return annotation(entry, REF_NAME)


def annotation(entry: Document, key: str) -> str:
    """An annotation of an entry, "" if it has none."""
    return annotations_of(entry).get(key, "")


def annotations_of(entry: Document) -> dict[str, str]:
    """The annotations of an entry, without those that are none: others may have written it."""
    found = entry.get("annotations")
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def same(entries: list[Document], wanted: Document) -> list[Document]:
    """The entries for the manifest of `wanted`."""
    if not isinstance(wanted.get("digest"), str):
        return [wanted]
    return [entry for entry in entries if entry.get("digest") == wanted["digest"]]


def grouped(entries: list[Document]) -> Iterator[list[Document]]:
    """The entries by manifest."""
    groups: dict[Any, list[Document]] = {}
    for number, entry in enumerate(entries):
        digest = entry.get("digest")
        groups.setdefault(digest if isinstance(digest, str) else number, []).append(entry)
    return iter(groups.values())


def named(
    entries: list[Document], descriptor: Document, name: str, annotations: dict[str, str]
) -> list[Document]:
    """The entries when `name` ("" for none) belongs to `descriptor`, with `annotations`."""
    mine = [entry for entry in entries if entry.get("digest") == descriptor["digest"]]
    if not name and any(name_of(entry) for entry in mine):
        name = name_of(next(entry for entry in mine if name_of(entry)))
    # An entry without a name gives way to one that has one.
    old = [entry for entry in mine if name_of(entry) in (name, "")]
    merged: dict[str, str] = {}
    for given in (*map(annotations_of, old), annotations):
        known = [text for text in (merged.get(REPO_DIGEST), given.get(REPO_DIGEST)) if text]
        merged.update(given)
        if known:
            merged[REPO_DIGEST] = ",".join(dict.fromkeys(",".join(known).split(",")))
    merged.pop(REF_NAME, None)
    if name:
        merged[REF_NAME] = name
    kept = [entry for entry in entries if entry not in old]
    new = {**descriptor, "annotations": merged} if merged else dict(descriptor)
    return [*(unnamed(kept, name) if name else kept), new]


def unnamed(entries: list[Document], name: str) -> list[Document]:
    """The entries when nothing is called `name`: an image that loses its last name stays."""
    result = []
    for entry in entries:
        if name_of(entry) == name:
            if len(same(entries, entry)) > 1:
                continue
            annotations = annotations_of(entry)
            del annotations[REF_NAME]
            entry = {**entry, "annotations": annotations}
            if not annotations:
                del entry["annotations"]
        result.append(entry)
    return result
