"""engine/bundle: the process, the names and the namespaces that options and image make."""

from __future__ import annotations

import json
import os

import pytest

from minicontainer.primitives import capabilities
from tests.support.bundles import (
    HOST,
    ID,
    MANY_IDS,
    PATHS,
    ROOTLESS,
    compose,
    kinds,
    refusal,
)


def test_the_default_process():
    eleven = capabilities.names(0x800405FB)
    assert compose()["process"] == {
        "terminal": False,
        "user": {"uid": 0, "gid": 0, "umask": 0o022, "additionalGids": []},
        "args": ["true"],
        "env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=minicontainer",
        ],
        "cwd": "/",
        "capabilities": {
            "bounding": eleven,
            "effective": eleven,
            "permitted": eleven,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [],
        "noNewPrivileges": False,
        "oomScoreAdj": 0,
    }


def test_the_default_namespaces_are_all_new_but_the_users():
    config = compose()
    expected = ("mount", "pid", "uts", "ipc", "network", "cgroup")
    assert kinds(config) == dict.fromkeys(expected)
    assert "uidMappings" not in config["linux"]


def test_the_rest_of_the_defaults():
    config = compose()
    assert config["ociVersion"] == "1.2.0"
    assert config["root"] == {"path": PATHS.rootfs(ID), "readonly": False}
    assert config["hostname"] == "minicontainer"
    assert config["annotations"] == {}
    assert config["linux"]["cgroupsPath"] == f"/minicontainer/{ID}"
    assert config["linux"]["sysctl"] == {"net.ipv4.ping_group_range": "0 2147483647"}
    assert config["linux"]["resources"]["pids"] == {"limit": 2048}
    assert set(config["linux"]["resources"]) == {"devices", "pids"}
    assert "seccomp" not in config["linux"]


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": []}, ["e", "c"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": ["x", "y"]}, ["e", "x", "y"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": [], "entrypoint": ["f"]}, ["f"]),
        ({"Entrypoint": ["e"]}, {"command": ["x"], "entrypoint": ["f"]}, ["f", "x"]),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": ["x"], "entrypoint": []}, ["x"]),
        ({"Cmd": ["c", "d"]}, {"command": []}, ["c", "d"]),
        ({"Entrypoint": None, "Cmd": None}, {"command": ["x"]}, ["x"]),
    ],
)
def test_the_command_follows_dockers_rules(image, options, expected):
    assert compose(image=image, **options)["process"]["args"] == expected


@pytest.mark.parametrize(
    ("image", "options"),
    [
        ({}, {"command": []}),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": [], "entrypoint": []}),
    ],
)
def test_no_command_is_an_error(image, options):
    assert refusal(image=image, **options) == "no command specified"


def test_the_environment_is_built_in_order_and_later_keys_replace_in_place():
    config = compose(
        image={"Env": ["PATH=/image", "A=1", "B=2", "C=3=4"]},
        tty=True,
        env=["A=9", "D=", "B", "TERM=vt100", "NOT_THERE"],
    )
    assert config["process"]["env"] == [
        "PATH=/image",
        "HOSTNAME=minicontainer",
        "TERM=vt100",
        "A=9",
        "C=3=4",
        "D=",
    ]
    assert config["process"]["terminal"] is True


def test_a_variable_without_a_name_is_refused():
    assert refusal(env=["=x"]) == "invalid environment variable: =x"


@pytest.mark.parametrize(
    ("workdir", "image", "expected"),
    [
        (None, {}, "/"),
        (None, {"WorkingDir": "/app"}, "/app"),
        (None, {"WorkingDir": "app"}, "/app"),
        ("/w//x/../y/", {"WorkingDir": "/app"}, "/w/y"),
        ("//w", {}, "/w"),
        ("", {"WorkingDir": ""}, "/"),
    ],
)
def test_the_working_directory_is_the_users_or_the_images_or_the_root(workdir, image, expected):
    assert compose(image=image, workdir=workdir)["process"]["cwd"] == expected


def test_a_relative_working_directory_is_refused():
    assert refusal(workdir="x/y") == (
        "the working directory 'x/y' is invalid, it needs to be an absolute path"
    )


@pytest.mark.parametrize(
    ("user", "image", "uid", "gid"),
    [
        (None, {}, 0, 0),
        ("1000", {}, 1000, 0),
        ("1000:50", {}, 1000, 50),
        ("alice", {}, 0, 0),
        ("alice:50", {}, 0, 50),
        ("1000:staff", {}, 1000, 0),
        (None, {"User": "7:8"}, 7, 8),
        ("0", {"User": "7:8"}, 0, 0),
    ],
)
def test_numbers_of_the_user_are_in_the_configuration(user, image, uid, gid):
    found = compose(image=image, user=user)["process"]["user"]
    assert (found["uid"], found["gid"]) == (uid, gid)


def test_another_user_than_root_gets_no_capabilities_but_the_bounding_set():
    sets = compose(user="1000")["process"]["capabilities"]
    assert sets.pop("bounding") == capabilities.names(0x800405FB)
    assert list(sets.values()) == [[]] * 4


def test_group_add_lists_the_numbers():
    user = compose(group_add=["audio", "29", "30"])["process"]["user"]
    assert user["additionalGids"] == [29, 30]


@pytest.mark.parametrize("user", ["a:b:c", "1:", ":1", "4294967295"])
def test_a_user_that_cannot_be_is_refused_early(user):
    assert refusal(user=user).startswith(f'invalid user "{user}": ')


def test_capabilities_are_added_and_dropped():
    sets = compose(cap_add=["NET_ADMIN"], cap_drop=["ALL"])["process"]["capabilities"]
    assert sets["bounding"] == sets["effective"] == sets["permitted"] == ["CAP_NET_ADMIN"]
    assert "CAP_NET_ADMIN" in refusal(host={**HOST, "bounding": 0x800405FB}, cap_add=["NET_ADMIN"])
    assert refusal(cap_add=["NOPE"]) == '--cap-add: unknown capability "NOPE"'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], False),
        (["no-new-privileges"], True),
        (["no-new-privileges:true"], True),
        (["no-new-privileges=false"], False),
        (["no-new-privileges", "seccomp=unconfined", "apparmor=unconfined"], True),
        (["label=disable"], False),
        (["label:disable"], False),
    ],
)
def test_no_new_privileges(options, expected):
    assert compose(security_opt=options)["process"]["noNewPrivileges"] is expected


@pytest.mark.parametrize("option", ["nonsense", "seccomp=/p.json", "no-new-privileges=maybe", ""])
def test_an_unknown_security_option_is_refused(option):
    assert refusal(security_opt=[option]).startswith(f'--security-opt "{option}": not supported')


def test_oom_score_adj():
    assert compose(oom_score_adj=-500)["process"]["oomScoreAdj"] == -500


def test_hostname_and_domainname():
    config = compose(hostname="web", domainname="example.org")
    assert (config["hostname"], config["domainname"]) == ("web", "example.org")
    assert "HOSTNAME=web" in config["process"]["env"]


@pytest.mark.parametrize("shared", [{"uts": "host"}, {"network": "host"}])
def test_sharing_the_hosts_names_leaves_the_hostname_alone(shared):
    config = compose({**HOST, "hostname": "metal"}, **shared)
    assert "hostname" not in config
    assert "HOSTNAME=metal" in config["process"]["env"]
    unknown = compose(**shared)["process"]["env"]
    assert not any(entry.startswith("HOSTNAME=") for entry in unknown)


def test_a_hostname_with_the_hosts_uts_namespace_is_refused():
    assert refusal(hostname="web", uts="host") == "--hostname and --uts host exclude each other"


def test_a_hostname_with_the_hosts_network_is_set():
    assert compose(hostname="web", network="host")["hostname"] == "web"


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("pid", "pid"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroupns", "cgroup"),
        ("network", "network"),
    ],
)
def test_host_means_no_namespace_of_that_kind(option, kind):
    assert kind not in kinds(compose(**{option: "host"}))


def test_a_containers_namespaces_are_joined_by_path():
    host = {**HOST, "namespaces": {"pid": "/proc/7/ns/pid", "network": "/proc/7/ns/net"}}
    config = compose(host, pid="container:x", network="container:x")
    assert kinds(config)["pid"] == "/proc/7/ns/pid"
    assert kinds(config)["network"] == "/proc/7/ns/net"
    assert config["linux"]["sysctl"] == {}, "the other container's, not ours to set"


def test_a_containers_namespace_that_was_not_found_is_an_error():
    assert "no such namespace" in refusal(pid="container:x")


def test_rootless_has_a_user_namespace_with_the_mappings():
    linux = compose(ROOTLESS)["linux"]
    assert {"type": "user"} in linux["namespaces"]
    assert linux["uidMappings"] == linux["gidMappings"] == MANY_IDS


def test_annotations_are_the_users():
    assert compose(annotation={"a": "b"})["annotations"] == {"a": "b"}


def test_nothing_of_our_environment_arrives(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "evil")
    monkeypatch.setenv("PYTHONPATH", "evil")
    assert "evil" not in json.dumps(compose())
    assert not any(name in json.dumps(compose()["process"]) for name in ("LD_", "PYTHON"))
    assert os.environ["LD_PRELOAD"] == "evil"


@pytest.mark.parametrize(
    ("parent", "expected"),
    [(None, "/minicontainer"), ("/a/b/", "/a/b"), ("a", "/a"), ("/", ""), ("a//b", "/a/b")],
)
def test_the_cgroup_lies_below_its_parent(parent, expected):
    assert compose(cgroup_parent=parent)["linux"]["cgroupsPath"] == f"{expected}/{ID}"


def test_a_cgroup_parent_cannot_climb():
    assert "must not contain '..'" in refusal(cgroup_parent="/a/../../b")
