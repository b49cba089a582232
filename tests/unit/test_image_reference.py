"""Names of images: Docker's grammar, and nothing but UsageError for the rest."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.errors import UsageError
from minicontainer.image import reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", ("docker.io", "library/x", "latest", "")),
        ("x:1.0", ("docker.io", "library/x", "1.0", "")),
        ("a/x", ("docker.io", "a/x", "latest", "")),
        ("docker.io/x", ("docker.io", "library/x", "latest", "")),
        ("docker.io/library/x", ("docker.io", "library/x", "latest", "")),
        ("index.docker.io/a/b", ("docker.io", "a/b", "latest", "")),
        ("localhost/x", ("localhost", "x", "latest", "")),
        ("localhost:5000/x", ("localhost:5000", "x", "latest", "")),
        ("x:5000", ("docker.io", "library/x", "5000", "")),
        ("quay.io/a/b/c:T_1.-", ("quay.io", "a/b/c", "T_1.-", "")),
        ("[::1]:5000/a:b", ("[::1]:5000", "a", "b", "")),
        ("[fe80::1]/a", ("[fe80::1]", "a", "latest", "")),
        ("127.0.0.1:5000/a__b/c---d", ("127.0.0.1:5000", "a__b/c---d", "latest", "")),
        (f"x@{DIGEST}", ("docker.io", "library/x", "", DIGEST)),
        (f"h.io/x:t@{DIGEST}", ("h.io", "x", "t", DIGEST)),
        ("Host/x", ("Host", "x", "latest", "")),
        ("x:" + "t" * 128, ("docker.io", "library/x", "t" * 128, "")),
    ],
)
def test_names_mean_what_docker_means(text, expected):
    assert tuple(reference.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "@", "/", "x:", "x/", "/x", "x//y", "x@", ":tag", "X", "a/X", "x y", "x\n"),
        *("-x", "x-", "a..b", "a___b", "a._b", "a.-b", "_a", "x:-t", "x:.t", "x:a b", "x:t:u"),
        *("x:" + "t" * 129, "a/" * 130 + "b", "h.io:0/x", "h.io:70000/x", "h.io:/x", "h..io/x"),
        *("-h.io/x", "h-.io/x", "[::1/x", "[]/x", "[::g]/x", "https://h.io/x", "x\0", "ä", "x:ä"),
        *("x@sha256:0", "x@sha256:" + "G" * 64, "x@" + DIGEST.upper(), "x@md5:" + "0" * 32),
        *(f"x@{DIGEST}@{DIGEST}", "x@sha512:" + "0" * 128, "f" * 64, "h.io:٣/x", "\u0660"),
    ],
)
def test_other_texts_are_refused_in_one_line(text):
    with pytest.raises(UsageError, match="invalid reference format") as refused:
        reference.parse(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_reasons_are_told_where_there_is_one():
    for text, reason in [
        ("Ubuntu", "lower case"),
        ("f" * 64, "image id"),
        ("x@sha512:" + "0" * 128, "sha512"),
    ]:
        with pytest.raises(UsageError, match=reason):
            reference.parse(text)


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/x", "x:latest"),
        ("docker.io/a/x:1", "a/x:1"),
        ("quay.io/x", "quay.io/x:latest"),
        (f"library/x:1@{DIGEST}", f"x:1@{DIGEST}"),
        (f"x@{DIGEST}", f"x@{DIGEST}"),
        ("library/a.b/c", "docker.io/library/a.b/c:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
        ("docker.io/localhost/c", "docker.io/localhost/c:latest"),
    ],
)
def test_familiar_names_leave_out_docker_hub(text, familiar):
    parsed = reference.parse(text)
    assert reference.familiar(parsed) == familiar
    assert reference.parse(familiar) == parsed


word = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
host = st.from_regex(r"[a-z0-9]{1,5}\.[a-z0-9]{1,5}(:[1-9][0-9]{0,3})?|localhost", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(
    st.one_of(st.just(""), host),
    st.lists(word, min_size=1, max_size=3),
    st.one_of(st.just(""), tags),
    st.booleans(),
)
def test_well_formed_names_survive_the_round_trip(registry, words, tag, digest):
    # A word with a dot in front would be a registry.
    text = "/".join([registry or "docker.io", *words] if registry or "." in words[0] else words)
    text += f":{tag}" if tag else ""
    text += f"@{DIGEST}" if digest else ""
    parsed = reference.parse(text)
    assert reference.parse(reference.canonical(parsed)) == parsed
    assert reference.parse(reference.familiar(parsed)) == parsed
    assert parsed.tag == (tag or ("" if digest else "latest"))


@given(st.text(max_size=80))
@example("a/b:c@" + DIGEST[:-1])
@example("\ud800")
def test_any_text_is_a_reference_or_a_usage_error(text):
    try:
        parsed = reference.parse(text)
    except UsageError:
        return
    assert reference.parse(reference.canonical(parsed)) == parsed
    assert reference.canonical(parsed).isascii()
    assert reference.is_registry(parsed.registry)
