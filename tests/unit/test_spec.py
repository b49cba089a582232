"""runtime/spec and runtime/grammar: what a config.json may be, and how a wrong one is refused."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.errors import KernelError, SpecError
from minicontainer.primitives import sysctls
from minicontainer.runtime import grammar, spec

VALID = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [5]},
        "args": ["sh", ""],
        "env": ["A=b", "C="],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}],
        "noNewPrivileges": True,
        "oomScoreAdj": -1000,
        "apparmorProfile": "x",
        "selinuxLabel": "y",
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/v", "source": "/s", "options": ["rbind", "ro"]},
    ],
    "hooks": {
        "prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 1}],
        "poststop": [],
    },
    "annotations": {"a/b~c": "d"},
    "linux": {
        "namespaces": [
            {"type": "mount"},
            {"type": "network", "path": "/proc/1/ns/net"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "user"},
        ],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "devices": [
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0},
            {"path": "/dev/p", "type": "p"},
        ],
        "cgroupsPath": "/a/b",
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": 1, "swap": -1, "disableOOMKiller": False},
            "cpu": {"shares": 2, "quota": -1, "cpus": "0"},
            "pids": {"limit": -1},
            "unified": {"memory.high": "max"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "blockIO": {"weight": 10},
        },
        "rootfsPropagation": "rslave",
        "seccomp": {"defaultAction": "left to its compiler"},
        "sysctl": {"net.core.somaxconn": "1", "kernel.shmmax": "2"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
    "unknown": {"members": "are ignored"},
}
REMOVED = object()


def changed(pointer: str, value: object) -> dict[str, object]:
    """VALID with the value at `pointer` replaced, added or REMOVED."""
    config = copy.deepcopy(VALID)
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    place = config
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key = int(last) if isinstance(place, list) else last
    if value is REMOVED:
        del place[key]
    elif isinstance(place, list) and key == len(place):
        place.append(value)
    else:
        place[key] = value
    return config


def refusal(config: object) -> str:
    with pytest.raises(SpecError) as refused:
        spec.validate(config)
    assert refused.value.exit_code == 125
    return str(refused.value)


def test_a_valid_configuration_passes_unchanged():
    config = copy.deepcopy(VALID)
    spec.validate(config)
    assert config == VALID


ABSOLUTE = "must be an absolute path"
TEXT = "must be a string"
REQUIRED = "is required"


@pytest.mark.parametrize(
    ("pointer", "value", "reason"),
    [
        ("/ociVersion", REMOVED, REQUIRED),
        ("/ociVersion", "2.0.0", "version 2.0.0 is not 1.x.y"),
        ("/ociVersion", "1", "version 1 is not 1.x.y"),
        ("/ociVersion", 1, TEXT),
        ("/root", REMOVED, REQUIRED),
        ("/root/path", "", "must not be empty"),
        ("/root/path", "a\0b", "must not contain a zero byte"),
        ("/root/readonly", 1, "must be true or false"),
        ("/process", REMOVED, REQUIRED),
        ("/process/args", REMOVED, REQUIRED),
        ("/process/args", [], "must be a non-empty list of strings"),
        ("/process/args", "sh", "must be a non-empty list of strings"),
        ("/process/args", ["sh", 1], "must be a non-empty list of strings"),
        ("/process/args/1", "\0", "must not contain a zero byte"),
        ("/process/args/1", "\ud800", "is not valid Unicode"),
        ("/process/cwd", "tmp", ABSOLUTE),
        ("/process/cwd", REMOVED, REQUIRED),
        ("/process/env/1", "NAME", "must be NAME=VALUE"),
        ("/process/env/1", "=x", "must be NAME=VALUE"),
        ("/process/env", {}, "must be a list of strings"),
        ("/process/terminal", "yes", "must be true or false"),
        ("/process/user/uid", -1, "must be from 0 to 4294967294"),
        ("/process/user/gid", 2**32 - 1, "must be from 0 to 4294967294"),
        ("/process/user/uid", True, "must be an integer"),
        ("/process/user/uid", 1.0, "must be an integer"),
        ("/process/user/umask", 0o1000, "must be from 0 to 511"),
        ("/process/user/additionalGids/0", "5", "must be an integer"),
        ("/process/capabilities/bounding/0", 7, TEXT),
        ("/process/rlimits/0/type", "RLIMIT_NO", "must be one of RLIMIT_AS, "),
        ("/process/rlimits/0/soft", -1, "must be from 0 to 18446744073709551615"),
        ("/process/oomScoreAdj", 1001, "must be from -1000 to 1000"),
        ("/hostname", 5, TEXT),
        ("/hostname", "x" * 65, "is longer than 64 bytes"),
        ("/mounts/0/destination", "proc", ABSOLUTE),
        ("/mounts/0/destination", REMOVED, REQUIRED),
        ("/mounts/1/source", REMOVED, "is required for a bind mount"),
        ("/mounts/1/options", "ro", "must be a list of strings"),
        ("/mounts/1", 7, "must be an object"),
        ("/hooks/prestart/0/path", "true", ABSOLUTE),
        ("/hooks/prestart/0/timeout", 0, "must be from 1 to 2147483647"),
        ("/annotations/a~1b~0c", None, TEXT),
        ("/linux", REMOVED, REQUIRED),
        ("/linux/namespaces/0/type", "mnt", "must be one of pid, network, mount"),
        ("/linux/namespaces/1/path", "ns", ABSOLUTE),
        ("/linux/uidMappings/0/size", 0, "must be from 1 to 4294967295"),
        ("/linux/uidMappings/0/hostID", REMOVED, REQUIRED),
        ("/linux/devices/0/path", "x", ABSOLUTE),
        ("/linux/devices/0/type", "d", "must be one of c, b, u, p"),
        ("/linux/devices/0/minor", REMOVED, REQUIRED),
        ("/linux/devices/0/major", 4096, "must be from 0 to 4095"),
        ("/linux/resources/memory/limit", 2**63, "must be from -9223372036854775808 to"),
        ("/linux/resources/cpu/shares", -1, "must be from 0 to 18446744073709551615"),
        ("/linux/resources/pids/limit", REMOVED, REQUIRED),
        ("/linux/resources/unified/..~1x", "1", "is not the name of a file"),
        ("/linux/rootfsPropagation", "open", "must be one of private, shared"),
        ("/linux/maskedPaths/0", "proc", ABSOLUTE),
        ("/linux/readonlyPaths", "/proc", "must be a list of absolute paths"),
        ("/linux/sysctl/kernel.panic", "1", "is not a sysctl of any namespace"),
        ("/linux/sysctl/net.~1..~1x", "1", "is not a sysctl of any namespace"),
        ("/linux/sysctl/net.core.somaxconn", 1, TEXT),
    ],
)
def test_a_wrong_member_is_refused_by_its_pointer(pointer, value, reason):
    assert refusal(changed(pointer, value)).startswith(f"{pointer}: {reason}")


@pytest.mark.parametrize(
    "version", ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.1.0+dev", "1.99.7", "1.0.0-rc2-dev"]
)
def test_every_version_1_is_taken_suffixes_included(version):
    spec.validate(changed("/ociVersion", version))


def without(kind: str) -> dict[str, object]:
    config = copy.deepcopy(VALID)
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [entry for entry in namespaces if entry["type"] != kind]
    return config


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (without("mount"), "/linux/namespaces: a mount namespace is required"),
        (without("uts"), "/hostname: needs a uts namespace in /linux/namespaces"),
        (without("user"), "/linux/uidMappings: needs a new user namespace in /linux/namespaces"),
        (without("ipc"), "/linux/sysctl/kernel.shmmax: needs a ipc namespace of its own"),
        (
            without("network"),
            "/linux/sysctl/net.core.somaxconn: needs a network namespace of its own",
        ),
        (
            changed("/linux/namespaces/4/path", "/proc/1/ns/user"),
            "/linux/uidMappings: needs a new user namespace in /linux/namespaces",
        ),
        (
            changed("/linux/gidMappings", []),
            "/linux/gidMappings: is required with a new user namespace",
        ),
        (
            changed("/linux/namespaces/5", {"type": "uts"}),
            "/linux/namespaces/5/type: uts is listed twice",
        ),
        (
            changed("/process/rlimits/1", {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}),
            "/process/rlimits/1/type: RLIMIT_NOFILE is listed twice",
        ),
        (
            changed("/process/rlimits/0/hard", 0),
            "/process/rlimits/0/soft: 1 is above the hard limit 0",
        ),
        ([], "/: must be an object"),
        (None, "/: must be an object"),
    ],
)
def test_members_must_agree(config, sentence):
    assert refusal(config) == sentence


# --- sysctl ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "network"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward", "network"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter", "network"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter", "network"),
        ("kernel.msgmax", "kernel/msgmax", "ipc"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced", "ipc"),
        ("kernel.sem", "kernel/sem", "ipc"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "ipc"),
        ("kernel.domainname", "kernel/domainname", "uts"),
        ("kernel.hostname", "kernel/hostname", None),
        ("kernel.core_pattern", "kernel/core_pattern", None),
        ("kernel.seminar", "kernel/seminar", None),
        ("vm.swappiness", "vm/swappiness", None),
        ("fs.mqueue", "fs/mqueue", None),
        ("net", None, None),
        ("", None, None),
        ("net..x", None, None),
        (".net.x", None, None),
        ("net.x.", None, None),
        ("net/../kernel/core_pattern", None, None),
        ("net/./x", None, None),
        ("net.//.x", None, None),
        ("net.x/../../kernel.y", None, None),
    ],
)
def test_a_sysctl_has_a_path_and_a_namespace(name, path, kind):
    assert sysctls.path_of(name) == path
    assert sysctls.namespace_of(name) == kind


@given(st.text("net./x", max_size=12))
def test_an_allowed_sysctl_stays_below_its_directory(tail):
    name = f"net.{tail}"
    if sysctls.namespace_of(name) is not None:
        path = sysctls.path_of(name)
        assert path is not None
        assert path.startswith("net/")
        assert not {"", ".", ".."} & set(path.split("/"))


# --- loading --------------------------------------------------------------------------------------


def write(tmp_path, text) -> str:
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
    return str(path)


def test_load_gives_the_configuration(tmp_path):
    assert spec.load(write(tmp_path, VALID)) == VALID


def test_load_drops_nulls_and_makes_destinations_absolute(tmp_path):
    config = changed("/mounts/0/destination", "proc")
    config["hooks"] = None
    config["process"]["capabilities"]["inheritable"] = None  # type: ignore[index]
    expected = copy.deepcopy(VALID)
    del expected["hooks"]
    assert spec.load(write(tmp_path, config)) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[" * 101 + b"]" * 101,
        b"[" * 200_000,
        b" " * ((16 << 20) + 1),
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"mounts": [1, {"destination": 5}]}',
    ],
)
def test_load_refuses_what_is_no_configuration(tmp_path, text):
    with pytest.raises(SpecError):
        spec.load(write(tmp_path, text))


def test_load_names_the_file_that_is_missing(tmp_path):
    with pytest.raises(KernelError, match=r"config\.json.*no such file or directory \(ENOENT\)"):
        spec.load(str(tmp_path / "config.json"))


# --- whatever is thrown at it ---------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["/", "user", "bind", "1.0.0", "net.x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def pointers(value, here=""):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, member in items:
        pointer = f"{here}/{grammar.escaped(str(name))}"
        yield pointer
        if isinstance(member, (dict, list)):
            yield from pointers(member, pointer)


def check_refusal(config) -> None:
    try:
        spec.validate(config)
    except SpecError as refused:
        assert str(refused).startswith("/")


@given(JSON)
def test_any_json_is_refused_with_a_pointer_or_passes(value):
    check_refusal(value)


@settings(max_examples=500)
@given(st.sampled_from(list(pointers(VALID))), JSON | st.just(REMOVED))
def test_any_one_member_replaced_is_refused_with_a_pointer_or_passes(pointer, value):
    check_refusal(changed(pointer, value))


@given(
    st.dictionaries(
        st.sampled_from([*VALID]),
        st.dictionaries(st.sampled_from([*VALID["linux"], *VALID["process"]]), JSON) | JSON,
    )
)
def test_known_members_with_any_value_are_refused_with_a_pointer_or_pass(config):
    check_refusal(config)
