"""Platforms: what this host can run, and which manifest of an index is meant for it.

Architectures have Go's names.  Variants: arm v5 to v7, arm64 v8, amd64 v1 to v4 by the features of
the processor (the levels of the x86-64 psABI).  A manifest that gives none counts as v7, v8, v1.
"""

from __future__ import annotations

import os

from minicontainer.errors import ImageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from typing import Any
else:
    from minicontainer.tuples import namedtuple

Platform = namedtuple("Platform", "os architecture variant")

_MACHINES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "armv5tejl": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_UNNAMED_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_AMD64_LEVELS = (
    ("v2", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    ("v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"),
    ("v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)
_LONGEST_WORD = 64


def host() -> Platform:
    """The platform this machine runs natively."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    if architecture == "amd64":
        variant = amd64_level(_processor_flags())
    return Platform("linux", architecture, variant)


def parse(text: str) -> Platform:
    """The platform that `os[/architecture[/variant]]` names. Raises UsageError."""
    words = text.lower().split("/")
    if not 1 <= len(words) <= 3 or not all(_is_word(word) for word in words):
        raise UsageError(f"{text!r} is not a platform: os[/architecture[/variant]]")
    if len(words) == 1:
        native = host()
        if words[0] == native.os:
            return native
        if words[0] in _MACHINES or words[0] in _UNNAMED_VARIANT:
            words.insert(0, native.os)
        else:
            return Platform(words[0], native.architecture, "")
    architecture, variant = _MACHINES.get(words[1], (words[1], ""))
    if len(words) == 3:
        variant = words[2] if words[2].startswith("v") else f"v{words[2]}"
    return Platform(words[0], architecture, variant or _UNNAMED_VARIANT.get(architecture, ""))


def of(described: dict[str, Any]) -> Platform | None:
    """The platform that an index entry or an image config gives; None if it gives none."""
    system, architecture = described.get("os"), described.get("architecture")
    if not isinstance(system, str) or not isinstance(architecture, str) or not architecture:
        return None
    variant = described.get("variant")
    return Platform(system, architecture, variant if isinstance(variant, str) else "")


def text(platform: Platform) -> str:
    """`linux/arm/v7`."""
    return "/".join(word for word in platform if word)


def runs(offered: Platform, wanted: Platform) -> bool:
    """Whether an image for `offered` is one for `wanted`, or for an older variant of it."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return False
    mine, theirs = _rank(wanted), _rank(offered)
    if mine is None or theirs is None:
        return bool(wanted.variant == offered.variant or not wanted.variant)
    return theirs <= mine


def select(index: dict[str, Any], wanted: Platform) -> dict[str, Any]:
    """The descriptor in `index` of the highest variant that runs on `wanted`.

    Raises ImageError that lists what there is.  Of equals the first counts.
    """
    best: dict[str, Any] | None = None
    best_rank = -1
    offered = []
    for descriptor in index["manifests"]:
        platform = of(descriptor.get("platform") or {})
        if platform is None or platform.os == "unknown":  # attestations
            continue
        offered.append(text(platform))
        rank = _rank(platform) or 0
        if runs(platform, wanted) and rank > best_rank:
            best, best_rank = descriptor, rank
    if best is not None:
        return best
    if not offered and len(index["manifests"]) == 1:
        only: dict[str, Any] = index["manifests"][0]
        if not only.get("platform"):
            return only
    there = ", ".join(sorted(set(offered))[:50]) or "none"
    raise ImageError(
        f"no matching manifest for {text(wanted)} in the manifest list entries; there are: {there}",
        hint="choose one with --platform" if offered else None,
    )


def amd64_level(flags: set[str]) -> str:
    """v1 to v4, for a processor with `flags` (the names of /proc/cpuinfo)."""
    level = "v1"
    for name, needed in _AMD64_LEVELS:
        if not flags.issuperset(needed.split()):
            break
        level = name
    return level


def _processor_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("flags"):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def _rank(platform: Platform) -> int | None:
    """The number in the variant, or that of the architecture's unnamed one; None: unknown."""
    variant = platform.variant or _UNNAMED_VARIANT.get(platform.architecture, "")
    number = variant[1:].partition(".")[0]  # v9.2: minor numbers are not compared
    if variant[:1] == "v" and number.isascii() and number.isdigit() and len(number) < 3:
        return int(number)
    return None if variant else 0


def _is_word(word: str) -> bool:
    return 0 < len(word) <= _LONGEST_WORD and word.replace("_", "").replace(".", "").isalnum()
