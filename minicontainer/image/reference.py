"""The names of images: `registry/repository:tag@digest`, parsed as Docker parses them.

`x` means `docker.io/library/x:latest`; the first part is a registry if it has a dot or a colon or
is `localhost`.  No search lists: a name means one place.  Written without `re`, for every
`run IMAGE` parses one name.  Grammar: github.com/distribution/reference.
"""

from __future__ import annotations

from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
else:
    from minicontainer.tuples import namedtuple

# tag and digest are "" where there is none; one of the two is always there.
Reference = namedtuple("Reference", "registry repository tag digest")

HUB = "docker.io"
LONGEST_NAME = 255
LONGEST_TAG = 128

_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HEX = frozenset("0123456789abcdef")
_NAME = _LOWER | _DIGITS
_HOST = _LOWER | _UPPER | _DIGITS | {"-"}
_TAG_FIRST = _LOWER | _UPPER | _DIGITS | {"_"}
_TAG = _TAG_FIRST | {".", "-"}


def parse(text: str) -> Reference:
    """The reference that `text` means, nothing left out. Raises UsageError for what is none."""
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, _digest_reason(digest))
    name, tag = _split_tag(rest)
    registry, repository = _split_registry(name)
    _check_repository(text, repository)
    if not is_registry(registry):
        raise _invalid(text)
    if tag is not None and not is_tag(tag):
        raise _invalid(text)
    if len(registry) + 1 + len(repository) > LONGEST_NAME:
        raise _invalid(text, f"the name is longer than {LONGEST_NAME} characters")
    if not digest and is_hex(rest, 64):
        raise _invalid(text, "64 hexadecimal digits are an image id, not a name")
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def canonical(reference: Reference) -> str:
    """The whole name: `docker.io/library/x:latest`, and `@sha256:…` if it has a digest."""
    return f"{name(reference)}{_suffix(reference)}"


def familiar(reference: Reference) -> str:
    """The name as people write it: `x:latest`, without the registry and library of Docker Hub."""
    return f"{familiar_name(reference)}{_suffix(reference)}"


def name(reference: Reference) -> str:
    """Registry and repository: `docker.io/library/x`."""
    return f"{reference.registry}/{reference.repository}"


def familiar_name(reference: Reference) -> str:
    """Registry and repository as people write them: `x`."""
    if reference.registry != HUB:
        return name(reference)
    repository: str = reference.repository
    first, _, rest = repository.partition("/")
    if first == "library" and rest and "/" not in rest:
        return rest
    # docker.io/a.b/c without its registry would be another one's.
    return name(reference) if _is_host(first) or first == "library" else repository


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits."""
    return text.startswith("sha256:") and is_hex(text[7:], 64)


def is_hex(text: str, length: int) -> bool:
    """Whether `text` is `length` lower-case hexadecimal digits."""
    return len(text) == length and _HEX.issuperset(text)


def is_tag(text: str) -> bool:
    """Whether `text` may follow the colon of a name."""
    return 0 < len(text) <= LONGEST_TAG and text[0] in _TAG_FIRST and _TAG.issuperset(text)


def is_registry(text: str) -> bool:
    """Whether `text` is a host name or address with or without a port."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not host or not (_HEX | set("ABCDEF:.")).issuperset(host):
            return False
        return not port or (port.startswith(":") and _is_port(port[1:]))
    host, colon, port = text.partition(":")
    labels = host.split(".")
    return (not colon or _is_port(port)) and all(
        label and _HOST.issuperset(label) and label[0] != "-" and label[-1] != "-"
        for label in labels
    )


def _is_port(text: str) -> bool:
    return 0 < len(text) <= 5 and _DIGITS.issuperset(text) and 0 < int(text) < 65536


def _split_tag(text: str) -> tuple[str, str | None]:
    """The name and the tag; a colon before the last slash belongs to a registry's port."""
    before, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, None
    return before, tag


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not _is_host(first):
        return HUB, text if slash else f"library/{text}"
    if first in ("index.docker.io", HUB):
        return HUB, rest if "/" in rest else f"library/{rest}"
    return first, rest


def _is_host(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first.lower() != first


def _check_repository(text: str, repository: str) -> None:
    if not all(_is_component(part) for part in repository.split("/")):
        lower = all(_is_component(part) for part in repository.lower().split("/"))
        raise _invalid(text, "the repository's name must be lower case" if lower else "")


def _is_component(text: str) -> bool:
    """Lower-case words joined by a dot, one or two underscores, or hyphens."""
    if not text or text[0] not in _NAME or text[-1] not in _NAME:
        return False
    separator = ""
    for character in text:
        if character in _NAME:
            separator = ""
            continue
        separator += character
        if separator not in (".", "_", "__") and separator.strip("-"):
            return False
    return True


def _digest_reason(digest: str) -> str:
    algorithm, colon, value = digest.partition(":")
    if colon and algorithm in ("sha384", "sha512") and _HEX.issuperset(value):
        return f"digests by {algorithm} are not supported, only sha256"
    return "a digest is sha256: and 64 lower-case hexadecimal digits"


def _suffix(reference: Reference) -> str:
    tag = f":{reference.tag}" if reference.tag else ""
    return f"{tag}@{reference.digest}" if reference.digest else tag


def _invalid(text: str, reason: str = "") -> UsageError:
    shown = text if len(text) <= 300 else f"{text[:300]}…"
    return UsageError(f"{shown!r}: invalid reference format{f': {reason}' if reason else ''}")
