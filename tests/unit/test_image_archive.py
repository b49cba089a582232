"""image.archive, saving, tarball: every format in, one format out, byte for byte the same again."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from minicontainer.errors import Conflict, Error, ImageError, UsageError
from minicontainer.image import archive, instructions, saving, tarball
from minicontainer.image.platforms import Platform
from minicontainer.image.store import Store
from tests.support import images
from tests.support.images import Made, digest, member, symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

NAME = "docker.io/library/x:latest"
OTHER = "quay.io/y/z:1.0"
AMD64 = Platform("linux", "amd64", "")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return images.new_store(tmp_path)


def made(text: bytes = b"content", **how: Any) -> Made:
    return Made([images.tar(member("f", text)), images.tar(member("g", b"common"))], **how)


def write(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return str(path)


def docker_files(image: Made, *tags: str, stem: str | None = None) -> dict[str, bytes]:
    """The files that `docker save` wrote before version 25."""
    config = json.dumps(image.config).encode()
    name = f"{digest(config)[7:] if stem is None else stem}.json"
    layers = [f"{number}/layer.tar" for number in range(len(image.layers))]
    listed = [{"Config": name, "RepoTags": list(tags) or None, "Layers": layers}]
    return {
        **dict(zip(layers, image.layers)),
        name: config,
        "manifest.json": json.dumps(listed).encode(),
        "repositories": b"{}",
    }


def save(store: Store, *names: str, **options: Any) -> bytes:
    reading, writing = os.pipe()
    parts: list[bytes] = []

    def collect() -> None:
        with os.fdopen(reading, "rb") as file:
            parts.append(file.read())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        found = [(store.find(name), [name] if ":" in name else []) for name in names]
        saving.save(store, found, writing, **options)
    finally:
        os.close(writing)
        thread.join()
    return parts[0]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


# ----------------------------------------------------------------------------------- load


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_oci_archive(tmp_path: Path, store: Store, packing: str, piped: bool) -> None:
    data = PACKERS[packing](images.archive(made().layout(OTHER)))
    if piped:
        reading, writing = os.pipe()
        thread = threading.Thread(target=lambda: (os.write(writing, data), os.close(writing)))
        thread.start()
        loaded = archive.load(store, reading)
        thread.join()
        os.close(reading)
    else:
        loaded = archive.load(store, write(tmp_path, data))
    assert [(one.name, one.image.names) for one in loaded] == [(OTHER, [OTHER])]
    assert Path(loaded[0].image.layers[1], "f").read_bytes() == b"content"
    assert loaded[0].image.digest == made().descriptor["digest"]
    assert store.check() == [] and os.listdir(store.paths.tmp) == []


def test_oci_directory(tmp_path: Path, store: Store) -> None:
    for name, data in made().layout("1.0").items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    ((name_, image),) = archive.load(store, str(tmp_path / "layout"))
    assert name_ is None and image.names == []  # a mere tag is no name


def test_directory_does_not_lead_out_of_itself(tmp_path: Path, store: Store) -> None:
    files = made().layout(OTHER)
    blob = next(name for name in files if name.startswith("blobs/"))
    (tmp_path / "secret").write_bytes(files[blob])
    for name, data in files.items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    os.unlink(tmp_path / "layout" / blob)
    os.symlink(tmp_path / "secret", tmp_path / "layout" / blob)
    with pytest.raises(ImageError, match="not a regular file"):
        archive.load(store, str(tmp_path / "layout"))
    os.unlink(tmp_path / "layout" / blob)
    os.mkfifo(tmp_path / "layout" / blob)
    with pytest.raises(ImageError, match="not a regular file"):
        archive.load(store, str(tmp_path / "layout"))
    assert store.images() == []


@pytest.mark.parametrize("packing", PACKERS)
def test_docker_archive(tmp_path: Path, store: Store, packing: str) -> None:
    files = docker_files(made(), "x:latest", "quay.io/y/z:1.0")
    files["0/layer.tar"] = PACKERS[packing](files["0/layer.tar"])
    loaded = archive.load(store, write(tmp_path, images.archive(files)))
    assert [one.name for one in loaded] == [NAME, OTHER]
    assert sorted(store.find("x").names) == [NAME, OTHER]
    assert Path(store.find("x").layers[1], "f").read_bytes() == b"content"
    assert store.find("x").id == digest(files[loaded[0].image.id[7:] + ".json"])


def test_layers_may_be_links_to_others(tmp_path: Path, store: Store) -> None:
    image = Made([images.tar(member("f"))] * 3)
    files = docker_files(image)
    members = [member(name, data) for name, data in files.items() if name[0] not in "12"]
    members += [symlink("1/layer.tar", "../0/layer.tar")]
    members += [images.link("2/layer.tar", "1/layer.tar")]
    ((_, loaded),) = archive.load(store, write(tmp_path, images.tar(*members)))
    assert len(loaded.diff_ids) == 3
    members += [symlink("1/layer.tar", "../2/layer.tar")]
    with pytest.raises(ImageError, match="circles"):
        archive.load(store, write(tmp_path, images.tar(*members)))


def test_several_images_and_an_index_within(tmp_path: Path, store: Store) -> None:
    arm = made(b"arm", architecture="arm64")
    intel = made(b"intel")
    inner = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {**arm.descriptor, "platform": {"os": "linux", "architecture": "arm64"}},
                {**intel.descriptor, "platform": {"os": "linux", "architecture": "amd64"}},
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest(b"not in the archive"),
                    "size": 5,
                    "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"},
                },
            ],
        }
    ).encode()
    index = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest(inner),
        "size": len(inner),
        "annotations": {archive.IMAGE_NAME: NAME},
    }
    files = {**arm.layout(), **intel.layout(), f"blobs/sha256/{digest(inner)[7:]}": inner}
    entries = [index, {**arm.descriptor, "annotations": {archive.IMAGE_NAME: OTHER}}]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    path = write(tmp_path, images.archive(files))
    loaded = archive.load(store, path, AMD64)
    assert [(one.name, one.image.config["architecture"]) for one in loaded] == [
        (NAME, "amd64"),
        (OTHER, "arm64"),
    ]
    with pytest.raises(ImageError, match="no matching manifest for linux/s390x"):
        archive.load(store, path, Platform("linux", "s390x", ""))


def without(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith(start)}


def changed(files: dict[str, bytes], old: str, new: str) -> dict[str, bytes]:
    return {name: data.replace(old.encode(), new.encode()) for name, data in files.items()}


LAYER = made().manifest["layers"][0]["digest"][7:]  # type: ignore[index]
BAD: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "something else": {"etc/passwd": b"root"},
    "no blob": without(made().layout(OTHER), f"blobs/sha256/{LAYER}"),
    "no config": without(docker_files(made()), digest(json.dumps(made().config).encode())[7:]),
    "wrong blob": {**made().layout(OTHER), f"blobs/sha256/{LAYER}": b"x"},
    "wrong name of a config": docker_files(made(), stem="0" * 64),
    "missing layer": without(docker_files(made()), "1/"),
    "another layer": {**docker_files(made()), "1/layer.tar": images.tar(member("evil"))},
    "layer that is no tar": {**docker_files(made()), "1/layer.tar": b"x" * 5000},
    "index that is no index": {**made().layout(), "index.json": b"[]"},
    "index of text": {**made().layout(), "index.json": b'{"manifests": ["x"]}'},
    "index of many": {**made().layout(), "index.json": b'{"manifests": [%s]}' % (b"{}," * 2000)},
    "list that closes early": {**docker_files(made()), "manifest.json": b'[]}, {"x":[]'},
    "list of text": {**docker_files(made()), "manifest.json": b'["x"]'},
    "layers of numbers": {
        **docker_files(made()),
        "manifest.json": b'[{"Config":"a","Layers":[1]}]',
    },
    "config outside": {
        **docker_files(made()),
        "manifest.json": b'[{"Config":"../../x","Layers":[]}]',
    },
    "impossible name": made().layout("x//y:1"),
    "size that lies": changed(made().layout(OTHER), '"size": ', '"size": 1'),
}


@pytest.mark.parametrize("files", BAD.values(), ids=BAD)
def test_bad_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, store: Store, files: dict[str, bytes]
) -> None:
    with pytest.raises(ImageError):
        archive.load(store, write(tmp_path, images.archive(files)))
    assert store.images() == [] and os.listdir(store.paths.layers) == []
    assert [name for name in os.listdir(store.paths.tmp) if not name.startswith("partial-")] == []
    store.collect(set())
    assert os.listdir(store.blobs.directory) == []


def test_indexes_in_indexes_end(tmp_path: Path, store: Store) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    files: dict[str, bytes] = {}
    described: dict[str, Any] = made().descriptor
    for _ in range(9):
        data = json.dumps(
            {"schemaVersion": 2, "mediaType": kind, "manifests": [described]}
        ).encode()
        files[f"blobs/sha256/{digest(data)[7:]}"] = data
        described = {"mediaType": kind, "digest": digest(data), "size": len(data)}
    files["index.json"] = json.dumps({"manifests": [described]}).encode()
    with pytest.raises(ImageError, match="indexes in indexes"):
        archive.load(store, write(tmp_path, images.archive(files)))


@pytest.mark.parametrize("length", [100, 700, 2000, -2000])
def test_cut_off_archive_is_refused(tmp_path: Path, store: Store, length: int) -> None:
    data = images.archive(made().layout(OTHER))
    for packed in (data[:length], gzip.compress(data)[: min(length, 900)]):
        with pytest.raises(ImageError):
            archive.load(store, write(tmp_path, packed))


# ----------------------------------------------------------------------------------- save


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_saved_loaded_saved_is_the_same(
    tmp_path: Path, store: Store, docker: bool, form: str
) -> None:
    made(docker=docker).add(store, NAME, OTHER)
    made(b"second", packed=False).add(store, "docker.io/library/second:1")
    first = save(store, OTHER, "second:1", NAME, form=form)
    again = images.new_store(tmp_path / "elsewhere")
    loaded = archive.load(again, write(tmp_path, first))
    assert sorted(str(one.name) for one in loaded) == ["docker.io/library/second:1", NAME, OTHER]
    assert save(again, OTHER, "second:1", NAME, form=form) == first
    for image in store.images():
        assert again.find(image.id).digest == image.digest


def test_what_is_written_is_sorted_plain_and_both(store: Store) -> None:
    image = made().add(store, NAME)
    data = save(store, "x:latest")
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        members = found.getmembers()
    names = [one.name for one in members]
    assert names == sorted(names)
    assert {(one.uid, one.gid, one.mtime, one.mode) for one in members} == {
        (0, 0, 0, 0o644),
        (0, 0, 0, 0o755),
    }
    files = images.names_in(data)
    (listed,) = json.loads(files["manifest.json"])
    assert listed["RepoTags"] == ["x:latest"]
    assert digest(files[listed["Config"]]) == image.id
    assert [digest(gzip.decompress(files[name])) for name in listed["Layers"]] == image.diff_ids
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {
        archive.IMAGE_NAME: NAME,
        "org.opencontainers.image.ref.name": "latest",
    }
    assert json.loads(files["repositories"]) == {"x": {"latest": listed["Layers"][-1][13:]}}
    plain = images.names_in(save(store, "x:latest", form="oci-archive"))
    assert "manifest.json" not in plain and "repositories" not in plain


def test_old_docker_archive_becomes_one_that_stays(tmp_path: Path, store: Store) -> None:
    archive.load(store, write(tmp_path, images.archive(docker_files(made(), "x:latest"))))
    first = save(store, "x:latest")
    again = images.new_store(tmp_path / "elsewhere")
    archive.load(again, write(tmp_path, first))
    assert save(again, "x:latest") == first


def test_plain_has_the_same_id_and_inflated_layers(tmp_path: Path, store: Store) -> None:
    image = made().add(store, NAME)
    data = save(store, "x:latest", plain=True)
    files = images.names_in(data)
    (listed,) = json.loads(files["manifest.json"])
    assert [digest(files[name]) for name in listed["Layers"]] == image.diff_ids
    ((_, loaded),) = archive.load(images.new_store(tmp_path / "2"), write(tmp_path, data))
    assert loaded.id == image.id and loaded.digest != image.digest


def test_image_without_a_name_can_be_saved(tmp_path: Path, store: Store) -> None:
    image = made().add(store)
    data = save(store, image.id[7:])
    ((name, loaded),) = archive.load(images.new_store(tmp_path / "2"), write(tmp_path, data))
    assert (name, loaded.digest) == (None, image.digest)


def test_files_and_directories_appear_whole(tmp_path: Path, store: Store) -> None:
    image = made().add(store, NAME)
    target = tmp_path / "out.tar"
    saving.save(store, [(image, [NAME])], str(target))
    assert target.read_bytes() == save(store, "x:latest")
    saving.save(store, [(image, [NAME])], str(tmp_path / "dir"), "oci-dir")
    ((name, _),) = archive.load(images.new_store(tmp_path / "2"), str(tmp_path / "dir"))
    assert name == NAME
    with pytest.raises(Conflict, match="not an empty directory"):
        saving.save(store, [(image, [NAME])], str(tmp_path / "dir"), "oci-dir")
    os.unlink(store.blob_path(image.id))
    for path, form in (("out2", "docker-archive"), ("dir2", "oci-dir")):
        with pytest.raises(ImageError, match="missing"):
            saving.save(store, [(image, [NAME])], str(tmp_path / path), form)
    assert sorted(os.listdir(tmp_path)) == ["2", "dir", "out.tar", "root"]


def test_reader_that_leaves_is_an_error_and_no_signal(store: Store) -> None:
    made().add(store, NAME)
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(Error, match="nobody reads") as caught:
        saving.save(store, [(store.find("x"), [NAME])], writing)
    os.close(writing)
    assert caught.value.exit_code == 141


# --------------------------------------------------------------------------------- import


@pytest.mark.parametrize("packing", PACKERS)
def test_tarball_becomes_an_image(tmp_path: Path, store: Store, packing: str) -> None:
    layer = images.tar(member("etc/f", b"x"), images.directory("./", mode=0o700))
    path = write(tmp_path, PACKERS[packing](layer))
    changes = ['CMD ["/bin/sh"]', "ENV A=b"]
    image = tarball.import_tarball(
        store, path, NAME, changes, "why", Platform("linux", "arm", "v7")
    )
    assert image.diff_ids == [digest(layer)]
    assert image.config["config"] == {"Cmd": ["/bin/sh"], "Env": ["A=b"]}
    assert image.config["history"][0]["comment"] == "why"
    assert [image.config[key] for key in ("os", "architecture", "variant")] == [
        "linux",
        "arm",
        "v7",
    ]
    assert image.manifest["annotations"][tarball.CREATED] == image.created
    assert stat.S_IMODE(os.stat(image.layers[0]).st_mode) == 0o700
    assert Path(store.find("x").layers[0], "etc/f").read_bytes() == b"x"
    packed = {"gzip": "+gzip"}.get(packing, "")
    assert image.manifest["layers"][0]["mediaType"].endswith(f"layer.v1.tar{packed}")


def test_import_of_what_is_no_tarball_leaves_nothing(tmp_path: Path, store: Store) -> None:
    for data in (b"text " * 500, gzip.compress(b"text " * 500), images.tar(member("../x"))):
        with pytest.raises(ImageError):
            tarball.import_tarball(store, write(tmp_path, data), NAME, [])
    with pytest.raises(ImageError, match="is a directory"):
        tarball.import_tarball(store, str(tmp_path), NAME, [])
    with pytest.raises(UsageError):
        tarball.import_tarball(store, write(tmp_path, b""), NAME, ["RUN x"])
    assert store.images() == [] and os.listdir(store.paths.tmp) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_commit_adds_a_layer_and_keeps_the_config(tmp_path: Path, store: Store) -> None:
    parent = made().add(store, NAME)
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "new").write_bytes(b"new")
    os.mknod(upper / "f", stat.S_IFCHR, 0)
    fd = os.open(upper, os.O_RDONLY)
    image = tarball.commit_layer(store, parent, fd, OTHER, ["USER me"], message="m", author="a")
    os.close(fd)
    assert image.config["config"] == {"Cmd": ["/bin/true"], "User": "me"}
    assert image.diff_ids[:2] == parent.diff_ids and len(image.layers) == 3
    assert sorted(os.listdir(image.layers[0])) == ["f", "new"]
    assert (image.config["author"], image.config["history"][-1]["comment"]) == ("a", "m")
    assert store.check() == []


# ---------------------------------------------------------------------------- instructions


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["CMD echo hi"], {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        (['entrypoint ["a", "b"]'], {"Entrypoint": ["a", "b"]}),
        (['ENV A="b c" D=e', "ENV A=2", "ENV F the rest"], {"Env": ["D=e", "A=2", "F=the rest"]}),
        (
            ["EXPOSE 80 53/udp 8000-8001"],
            {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}},
        ),
        (["LABEL a=1 b='x y'"], {"Labels": {"a": "1", "b": "x y"}}),
        (
            ['VOLUME ["/a", "/b"]', "VOLUME /c /d"],
            {"Volumes": {"/a": {}, "/b": {}, "/c": {}, "/d": {}}},
        ),
        (["WORKDIR /a", "WORKDIR b"], {"WorkingDir": "/a/b"}),
        (["USER u:g", "STOPSIGNAL SIGINT"], {"User": "u:g", "StopSignal": "SIGINT"}),
        (["ONBUILD RUN x", "ONBUILD RUN y"], {"OnBuild": ["RUN x", "RUN y"]}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --retries=2 CMD true"],
            {"Healthcheck": {"Interval": 90 * 10**9, "Retries": 2, "Test": ["CMD-SHELL", "true"]}},
        ),
    ],
)
def test_changes(changes: list[str], expected: dict[str, Any]) -> None:
    assert instructions.apply({}, changes) == expected


@pytest.mark.parametrize(
    "change",
    [
        "",
        "RUN x",
        "CMD",
        "ENV a=b c",
        "ENV 'x",
        "EXPOSE x",
        "EXPOSE 0",
        "EXPOSE 70000",
        "EXPOSE 80/x",
        "EXPOSE 9-8",
        "HEALTHCHECK x",
        "HEALTHCHECK --interval=x CMD y",
        "HEALTHCHECK --a=b NONE",
    ],
)
def test_bad_changes(change: str) -> None:
    with pytest.raises(UsageError):
        instructions.apply({}, [change])


def test_entry_point_drops_the_arguments_of_the_image() -> None:
    assert "Cmd" not in instructions.apply({"Cmd": ["x"]}, ["ENTRYPOINT /y"])
