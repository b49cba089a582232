"""`--filter KEY=VALUE` for images: values of one key are alternatives, keys must all fit."""

from __future__ import annotations

from minicontainer.cli import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minicontainer.image.store import Image, Store

    Condition = tuple[str, str]
    Test = Callable[[Image, str], bool]  # of an image under one of its names ("": none)

KEYS = ("before", "dangling", "label", "reference", "since")


def condition(text: str) -> Condition:
    """The key and value of one --filter. Raises ValueError."""
    key, equals, value = text.partition("=")
    if not equals or key not in KEYS:
        raise ValueError(f"expected KEY=VALUE with a key of {', '.join(KEYS)}")
    if key == "dangling":
        value = str(options.boolean(value))
    return key, value


def choose(
    store: Store, images: Sequence[Image], conditions: Sequence[Condition]
) -> list[tuple[Image, str]]:
    """The (image, name) that fit. Raises NotFound for an unknown `before` or `since`."""
    tests: dict[str, list[Test]] = {}
    for key, value in conditions:
        tests.setdefault(key, []).append(_test(store, key, value))
    return [
        (image, name)
        for image in images
        for name in sorted(image.names) or [""]
        if all(any(test(image, name) for test in group) for group in tests.values())
    ]


def _test(store: Store, key: str, value: str) -> Test:
    if key == "dangling":
        return lambda image, name: (not image.names) == (value == "True")
    if key == "label":
        return lambda image, name: has_label(image, value)
    if key == "reference":
        return lambda image, name: matches(name, value)
    from minicontainer.engine.images import moment

    then = moment(store.find(value).created)
    if key == "before":
        return lambda image, name: moment(image.created) < then
    return lambda image, name: moment(image.created) > then


def has_label(image: Image, condition: str) -> bool:
    """Whether an image has the label of `KEY` or `KEY=VALUE`."""
    labels = (image.config.get("config") or {}).get("Labels") or {}
    name, equals, wanted = condition.partition("=")
    return name in labels and (not equals or labels[name] == wanted)


def matches(name: str, pattern: str) -> bool:
    """Whether a canonical name fits a shell pattern, with or without tag, registry and library.

    `*` and `?` stand for no slash.
    """
    from minicontainer.engine.images import familiar

    if not name:
        return False
    spellings = {name, familiar(name)}
    spellings |= {repository(one) for one in spellings}
    return any(_fits(one, pattern) for one in spellings)


def repository(name: str) -> str:
    """A name without its tag and digest."""
    name = name.partition("@")[0]
    before, colon, tag = name.rpartition(":")
    return before if colon and "/" not in tag else name


def _fits(text: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    words, patterns = text.split("/"), pattern.split("/")
    return len(words) == len(patterns) and all(map(fnmatchcase, words, patterns))
