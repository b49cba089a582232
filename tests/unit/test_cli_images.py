"""cli.images, cli.image_filters, engine.images: rows, conditions and names, without the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicontainer.cli import image_filters, images
from minicontainer.engine import images as engine
from minicontainer.errors import NotFound, UsageError
from tests.support.images import Made, member, new_store, tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.image.store import Store

NAME = "docker.io/library/x:1.2"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def made(text: bytes, created: str, **config: object) -> Made:
    return Made([tar(member("f", text))], created=created, config=config)


def test_row_has_the_columns_of_docker(store: Store) -> None:
    image = made(b"12345678", "2024-05-06T07:08:09Z").add(store, NAME)
    row = images.row(image, NAME, 1715238489.0, full=False, counts={image.id: 2})
    assert (row["Repository"], row["Tag"]) == ("x", "1.2")
    assert row["ID"] == image.id[7:19]
    assert row["CreatedSince"] == "3 days ago"
    assert row["Size"] == "8B"
    assert row["Digest"] == "<none>"
    assert row["Containers"] == "2"
    assert images.row(image, NAME, 0, full=True, counts={})["ID"] == image.id


def test_row_of_an_image_without_a_name(store: Store) -> None:
    image = made(b"x", "").add(store)
    row = images.row(image, "", 0, full=False, counts={})
    assert (row["Repository"], row["Tag"], row["CreatedSince"]) == ("<none>", "<none>", "N/A")


def test_row_of_a_name_with_a_digest(store: Store) -> None:
    image = made(b"x", "").add(store)
    name = f"quay.io/a/b@{image.digest}"
    row = images.row(image, name, 0, full=False, counts={})
    assert (row["Repository"], row["Tag"]) == ("quay.io/a/b", "<none>")


def chosen(store: Store, *conditions: str) -> list[str]:
    pairs = [image_filters.condition(text) for text in conditions]
    return [name for _, name in image_filters.choose(store, store.images(), pairs)]


def test_filters(store: Store) -> None:
    old = made(b"1", "2020-01-01T00:00:00Z", Labels={"a": "1"}).add(store, NAME)
    made(b"2", "2021-01-01T01:00:00+02:00", Labels={"a": "2"}).add(
        store, "quay.io/p/y:2", "docker.io/library/q:3"
    )
    made(b"3", "2022-01-01T00:00:00Z").add(store)
    assert chosen(store) == ["", "docker.io/library/q:3", "quay.io/p/y:2", NAME]
    assert chosen(store, "dangling=true") == [""]
    assert NAME in chosen(store, "dangling=false") and "" not in chosen(store, "dangling=0")
    assert chosen(store, "label=a=1") == [NAME]
    assert chosen(store, "label=a", "reference=x") == [NAME]
    assert len(chosen(store, "label=a=1", "label=a=2")) == 3
    assert chosen(store, "since=quay.io/p/y:2") == [""]
    assert chosen(store, "before=quay.io/p/y:2") == [NAME]
    assert chosen(store, f"since={old.id[7:20]}", "reference=quay.io/*/*") == ["quay.io/p/y:2"]
    with pytest.raises(NotFound):
        chosen(store, "since=nobody")


@pytest.mark.parametrize("text", ["dangling", "dangling=perhaps", "colour=blue", "="])
def test_bad_filters(text: str) -> None:
    with pytest.raises(ValueError):
        image_filters.condition(text)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("x", True), ("x:1.2", True), ("x:*", True), ("*", True), ("x:1.3", False), ("y", False),
        ("docker.io/library/x", True), ("docker.io/*/x:1.?", True), ("docker.io/x", False),
        ("[wx]", True),
    ],
)  # fmt: skip
def test_reference_patterns(pattern: str, fits: bool) -> None:
    assert image_filters.matches(NAME, pattern) is fits


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T02:01:00+02:00", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.5), ("", 0.0), ("soon", 0.0), ("0001-01-01T00:00:00Z", 0.0),
        ("1970-01-01T00:00:00-00:30", 1800.0), ("0000-99-99T99:99:99+99:99", 0.0),
    ],
)  # fmt: skip
def test_moments_of_any_zone(stamp: str, seconds: float) -> None:
    assert engine.moment(stamp) == seconds


def test_name_meant(store: Store) -> None:
    image = made(b"1", "").add(store, NAME, "quay.io/p/y:2")
    assert engine.name_meant(image, "x:1.2") == NAME
    assert engine.name_meant(image, NAME) == NAME
    assert engine.name_meant(image, image.id) == ""
    assert engine.name_meant(image, image.id[7:20]) == ""
    assert engine.name_meant(image, f"quay.io/p/y@{image.digest}") == "quay.io/p/y:2"


def test_history_gives_sizes_to_the_steps_that_made_layers(store: Store) -> None:
    steps = [
        {"created_by": "ADD"},
        {"created_by": "ENV", "empty_layer": True},
        {"created_by": "RUN"},
    ]
    image = Made([tar(member("f", b"12")), tar(member("g", b"1234567"))], history=steps).add(
        store, NAME
    )
    found = engine.history(store, image)
    assert [(one["created_by"], one["size"]) for one in found] == [
        ("RUN", 7),
        ("ENV", 0),
        ("ADD", 2),
    ]
    plain = Made([tar(member("f", b"12")), tar(member("g", b"1234567"))]).add(store, NAME)
    assert [one["size"] for one in engine.history(store, plain)] == [7, 2]


def test_inspect_has_the_shape_of_docker(store: Store) -> None:
    image = made(b"12", "2020-01-01T00:00:00Z", Cmd=["sh"], Labels={"a": "b"}).add(store, NAME)
    facts = engine.inspect(store, image)
    assert facts["Id"] == image.id
    assert facts["RepoTags"] == ["x:1.2"] and facts["RepoDigests"] == []
    assert facts["Config"]["Cmd"] == ["sh"] and facts["Config"]["User"] == ""
    assert facts["Size"] == 2
    assert facts["RootFS"] == {"Type": "layers", "Layers": image.diff_ids}
    assert facts["GraphDriver"]["Data"]["UpperDir"] == image.layers[0]


def test_pull_policy_never(tmp_path: Path, store: Store) -> None:
    from minicontainer.paths import Paths

    paths = Paths(str(tmp_path / "fresh"), str(tmp_path / "run"))
    with pytest.raises(NotFound, match="No such image: x"):
        engine.for_run(paths, {"image": "x", "pull": "never"})
    with pytest.raises(UsageError, match="invalid reference format"):
        engine.for_run(paths, {"image": "X", "pull": "missing"})
