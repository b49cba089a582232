"""The door: which manifests, indexes and configs are let in, and that nothing else breaks it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import ImageError, UnsupportedMedia
from minicontainer.image import configs, media

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


def descriptor(media_type=f"{media.OCI_LAYER}+gzip", **members):
    return {"mediaType": media_type, "digest": DIGEST, "size": 10, **members}


def manifest(**members):
    return {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(media.OCI_CONFIG),
        "layers": [descriptor()],
        **members,
    }


def index(**members):
    return {"schemaVersion": 2, "manifests": [descriptor(media.OCI_MANIFEST)], **members}


def config(**members):
    return {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        **members,
    }


def parse(document, media_type=None):
    return media.parse_manifest(json.dumps(document).encode(), media_type)


@pytest.mark.parametrize("layer", media.LAYERS)
def test_manifests_of_both_families_are_taken(layer):
    document = manifest(layers=[descriptor(layer)])
    assert parse(document, media.OCI_MANIFEST) == document
    del document["mediaType"]
    assert parse(document) == document
    docker = {**document, "config": descriptor(media.DOCKER_CONFIG)}
    assert media.manifest_type(parse(docker, media.DOCKER_MANIFEST), media.DOCKER_MANIFEST)


def test_indexes_of_both_families_are_taken():
    for kind in media.INDEXES:
        assert media.is_index(media.manifest_type(parse(index(), kind), kind))
    assert media.is_index(media.manifest_type(parse(index())))


def test_what_is_both_index_and_manifest_is_refused():
    for media_type in (None, *media.INDEXES, *media.MANIFESTS):
        with pytest.raises(ImageError, match="both an index and a manifest"):
            parse({**index(), **manifest(), "mediaType": media_type}, media_type)


@pytest.mark.parametrize(
    ("document", "announced", "reason"),
    [
        (manifest(), media.DOCKER_MANIFEST, "its header"),
        (manifest(mediaType=media.OCI_INDEX), media.OCI_INDEX, "content"),
        (index(), media.OCI_MANIFEST, "content"),
        (manifest(mediaType=7), None, "not a string"),
        (manifest(schemaVersion=3), None, "schemaVersion"),
        (manifest(schemaVersion=1), None, "schema 1"),
        ({"schemaVersion": 1, "fsLayers": []}, None, "schema 1"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (manifest(), "text/html", "unknown manifest type"),
        (manifest(mediaType="application/vnd.x"), None, "unknown manifest type"),
        (manifest(layers={}), None, "no layers"),
        (manifest(layers=[descriptor()] * 501), None, "501 layers"),
        (manifest(config=None), None, "image config"),
        (
            manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")),
            None,
            "not a con",
        ),
        (manifest(config=descriptor(media.OCI_CONFIG, size=1 << 40)), None, "larger"),
        (manifest(layers=[descriptor(size=-1)]), None, "size"),
        (manifest(layers=[descriptor(size=True)]), None, "size"),
        (manifest(layers=[descriptor(size=1.5)]), None, "size"),
        (manifest(layers=[descriptor(size=1 << 62)] * 3), None, "add up"),
        (manifest(layers=[descriptor(digest="sha256:x")]), None, "digest"),
        (manifest(layers=[descriptor(digest=f"sha256:../{HEX[3:]}")]), None, "digest"),
        (manifest(layers=[descriptor(digest=DIGEST.upper())]), None, "digest"),
        (manifest(layers=[descriptor(digest=None)]), None, "digest"),
        (manifest(layers=[descriptor("application/x")]), None, "unknown layer type"),
        (manifest(layers=[descriptor(f"{media.OCI_LAYER}+encrypted")]), None, "encrypted"),
        (
            manifest(
                layers=[descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]
            ),
            None,
            "foreign",
        ),
        (
            manifest(
                layers=[descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")]
            ),
            None,
            "foreign",
        ),
        (manifest(annotations={"a": 1}), None, "annotations"),
        (manifest(layers=[descriptor(annotations=[])]), None, "annotations"),
        (index(manifests=5), None, "not a list"),
        (index(manifests=[descriptor(platform=[])]), None, "platform"),
        (index(manifests=[descriptor()] * 10001), None, "10001 entries"),
        ([], None, "not a JSON object"),
    ],
)
def test_others_are_refused_with_the_reason(document, announced, reason):
    with pytest.raises(ImageError, match=reason) as refused:
        parse(document, announced)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{\0}\0",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 123456789012345678901234567890}',
        b'{"a": -9223372036854775809}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 150 + b"1" + b"}" * 150,
        b'{"a": %s}' % (b"1" * 1_000_000),
        b" " * (media.LARGEST_DOCUMENT + 1),
    ],
)
def test_json_that_could_not_be_kept_is_refused_quickly(data):
    before = time.monotonic()
    for read in (media.parse_manifest, media.parse_config):
        with pytest.raises(ImageError) as refused:
            read(data)
        assert len(str(refused.value)) < 400
    assert time.monotonic() - before < 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(manifest())), json_values)
def test_any_value_anywhere_in_a_manifest_is_taken_or_refused(name, value):
    try:
        parse(manifest(**{name: value}))
    except ImageError:
        pass


@given(st.sampled_from([*configs._TOP, *configs._CONFIG]), json_values)
def test_any_value_anywhere_in_a_config_is_taken_or_refused(name, value):
    members = {name: value} if name in configs._TOP else {"config": {name: value}}
    try:
        media.parse_config(json.dumps(config(**members)).encode())
    except ImageError:
        pass


def test_configs_as_they_are_written_today_are_taken():
    document = config(
        created="2026-11-23T10:45:56.143698672Z",
        author=None,
        variant="v8",
        config={
            "User": "app:staff",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000-8010": {}},
            "Env": ["PATH=/bin", "EMPTY="],
            "Entrypoint": None,
            "Cmd": ["sh", "-c", "true"],
            "Volumes": {"/data": {}},
            "WorkingDir": "/srv",
            "Labels": {"a": "", "b": "x" * 100_000},
            "StopSignal": "SIGRTMIN+3",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 3},
            "OnBuild": None,
        },
        history=[{"created": "1970-01-01T00:00:00+01:00", "created_by": "x", "empty_layer": True}],
    )
    data = json.dumps(document).encode()
    assert media.parse_config(data, layers=1) == document
    with pytest.raises(ImageError, match="1 diff_ids, its manifest 2 layers"):
        media.parse_config(data, layers=2)
    scratch = json.dumps(config(rootfs={"type": "layers", "diff_ids": None})).encode()
    assert media.parse_config(scratch, 0)["rootfs"]["diff_ids"] == []


@pytest.mark.parametrize(
    "members",
    [
        {"os": ""},
        {"architecture": None},
        {"os": "a\nb"},
        {"rootfs": None},
        {"rootfs": {"type": "x", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:x"]}},
        {"created": "yesterday"},
        {"created": "10000-01-01T00:00:00Z"},
        {"created": "2026-13-01T00:00:00Z"},
        {"created": 5},
        {"history": {}},
        {"history": [5]},
        {"history": [{"empty_layer": "no"}]},
        {"config": []},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"Env": [5]}},
        {"config": {"Env": "A=b"}},
        {"config": {"Cmd": "sh"}},
        {"config": {"Entrypoint": [None]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Volumes": ["/x"]}},
        {"config": {"ExposedPorts": {"80/http": {}}}},
        {"config": {"ExposedPorts": {"99999": {}}}},
        {"config": {"ExposedPorts": {"9-8": {}}}},
        {"config": {"ExposedPorts": {"²": {}}}},
        {"config": {"StopTimeout": 1 << 40}},
        {"config": {"StopSignal": "x" * 100}},
        {"config": {"Healthcheck": {"Interval": -1}}},
        {"config": {"Healthcheck": {"Retries": 1e9}}},
        {"config": {"User": "x" * ((1 << 20) + 1)}},
    ],
)
def test_poisonous_configs_are_refused(members):
    with pytest.raises(ImageError, match="image config|rootfs|diff_id") as refused:
        media.parse_config(json.dumps(config(**members)).encode())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        *(("2026-11-23T10:45:56Z", True), ("2026-11-23 10:45:56.1z", True)),
        *(("2026-02-29T23:59:60+23:59", True), ("0001-01-01T00:00:00Z", True)),
        *(("2026-11-23T10:45:56", False), ("2026-11-23T24:00:00Z", False)),
        *(("2026-11-23T10:45:56.Z", False), ("2026-11-31T10:45:56Z", False)),
        *(("0000-01-01T00:00:00Z", False), ("٢٠٢٦-11-23T10:45:56Z", False), ("", False)),
        *(("2026-11-23T10:45:56+24:00", False), ("2026-11-23T10:45:56+1:00", False)),
    ],
)
def test_times(text, good):
    assert configs.is_time(text) is good


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text):
    assert configs.is_time(text) in (True, False)


def tar_bytes(format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return buffer.getvalue()


def test_packing_is_told_by_the_first_bytes():
    layer = f"{media.OCI_LAYER}+gzip"
    assert media.layer_kind(layer, gzip.compress(b"")) == "gzip"
    assert media.layer_kind(media.OCI_LAYER, b"\x28\xb5\x2f\xfd....") == "zstd"
    assert media.layer_kind(layer, b"\x53\x2a\x4d\x18....") == "zstd"
    assert media.layer_kind(layer, tar_bytes()[:512]) == "tar"
    assert media.layer_kind(layer, bytes(512)) == "tar"
    old = bytearray(tar_bytes(tarfile.USTAR_FORMAT)[:512])
    old[257:265] = bytes(8)
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 256 + sum(old[156:]))
    assert media.layer_kind(layer, bytes(old)) == "tar"
    for wrong in (b"BZh9", b"\xfd7zXZ\0", b"hello, world", b"MZ" * 256):
        with pytest.raises(UnsupportedMedia):
            media.layer_kind(layer, wrong)
    with pytest.raises(UnsupportedMedia, match="unknown layer type"):
        media.layer_kind("text/plain", tar_bytes())


@given(st.binary(max_size=600))
def test_any_bytes_are_a_layer_or_refused(data):
    try:
        assert media.layer_kind(media.OCI_LAYER, data) in ("tar", "gzip", "zstd")
    except UnsupportedMedia:
        pass
