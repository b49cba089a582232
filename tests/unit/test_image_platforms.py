"""Which manifest of an index is for whom."""

from __future__ import annotations

import pytest

from minicontainer.errors import ImageError, UsageError
from minicontainer.image import platforms
from minicontainer.image.platforms import Platform


def index(*texts):
    manifests = []
    for number, text in enumerate(texts):
        words = dict(zip(("os", "architecture", "variant"), text.split("/")))
        manifests.append({"digest": number, "platform": words})
    return {"manifests": manifests}


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        ("linux/amd64", "linux/amd64/v3", 0),
        ("linux/arm64 linux/amd64", "linux/amd64", 1),
        ("linux/amd64 linux/amd64/v2 linux/amd64/v3 linux/amd64/v4", "linux/amd64/v3", 2),
        ("linux/amd64/v3 linux/amd64", "linux/amd64/v2", 1),
        ("linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v7", 1),
        ("linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v6", 2),
        ("linux/arm/v6 linux/arm", "linux/arm/v7", 1),
        ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm64/v8 linux/arm64", "linux/arm64/v8", 0),
        ("unknown/unknown linux/riscv64", "linux/riscv64", 1),
        ("windows/amd64 linux/amd64", "linux/amd64/v1", 1),
        ("linux/mips/strange", "linux/mips", 0),
        ("linux/amd64 linux/amd64", "linux/amd64", 0),
    ],
)
def test_the_highest_variant_that_runs_is_chosen(offered, wanted, chosen):
    selected = platforms.select(index(*offered.split()), platforms.parse(wanted))
    assert selected["digest"] == chosen


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [
        ("linux/arm64 unknown/unknown windows/amd64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v2"),
        ("linux/arm/v7", "linux/arm/v6"),
        ("linux/arm/v7", "linux/arm64"),
        ("", "linux/amd64"),
    ],
)
def test_what_there_is_is_listed_when_nothing_fits(offered, wanted):
    with pytest.raises(ImageError, match="no matching manifest") as refused:
        platforms.select(index(*offered.split()), platforms.parse(wanted))
    for text in offered.split():
        assert (text in str(refused.value)) == (text != "unknown/unknown")


def test_a_single_manifest_without_platform_is_taken():
    assert platforms.select({"manifests": [{"digest": "x"}]}, platforms.host())["digest"] == "x"


def test_strange_platforms_in_an_index_do_no_harm():
    strange = [{"os": 5}, {"os": "linux"}, {"os": "linux", "architecture": []}, None, {}]
    strange += [{"os": "linux", "architecture": "arm", "variant": "v" + "9" * 5000}]
    strange += [{"os": "linux", "architecture": "arm", "variant": "v²"}]
    document = {"manifests": [{"platform": platform} for platform in strange]}
    with pytest.raises(ImageError):
        platforms.select(document, platforms.parse("linux/arm/v7"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", ("linux", "amd64", "v1")),
        ("linux/x86_64", ("linux", "amd64", "v1")),
        ("Linux/ARM64", ("linux", "arm64", "v8")),
        ("linux/aarch64/v8", ("linux", "arm64", "v8")),
        ("linux/arm/6", ("linux", "arm", "v6")),
        ("linux/armv6l", ("linux", "arm", "v6")),
        ("linux/s390x", ("linux", "s390x", "")),
        ("arm64", ("linux", "arm64", "v8")),
    ],
)
def test_platforms_as_they_are_typed(text, expected):
    assert tuple(platforms.parse(text)) == expected


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/a b", "a/b/c/d", "linux/" + "x" * 99])
def test_other_texts_are_usage_errors(text):
    with pytest.raises(UsageError, match="is not a platform"):
        platforms.parse(text)


def test_levels_of_amd64_processors():
    v2 = set("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split())
    v3 = v2 | set("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split())
    v4 = v3 | set("avx512f avx512bw avx512cd avx512dq avx512vl".split())
    levels = [platforms.amd64_level(flags) for flags in (set(), v2, v3, v4, v4 - v2)]
    assert levels == ["v1", "v2", "v3", "v4", "v1"]


def test_this_host_runs_what_is_made_for_it():
    host = platforms.host()
    assert host.os == "linux"
    assert platforms.runs(Platform(host.os, host.architecture, ""), host)
