"""engine/bundle_mounts: the tables of CONFINEMENT, and what options change in them."""

from __future__ import annotations

import pytest

from minicontainer.primitives import capabilities
from tests.support.bundles import (
    HOST,
    ID,
    ONE_ID,
    PATHS,
    ROOTLESS,
    bind,
    compose,
    kinds,
    mount,
    options_at,
    refusal,
    tmpfs,
)


def test_the_default_mounts_are_the_table_in_its_order():
    etc = PATHS.etc(ID)
    assert [
        (entry["destination"], entry["type"], entry["source"], ",".join(entry["options"]))
        for entry in compose()["mounts"]
    ] == [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("/dev/shm", "tmpfs", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/sys", "sysfs", "sysfs", "ro,nosuid,noexec,nodev"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        ("/etc/resolv.conf", "bind", f"{etc}/resolv.conf", "bind,rprivate"),
        ("/etc/hosts", "bind", f"{etc}/hosts", "bind,rprivate"),
        ("/etc/hostname", "bind", f"{etc}/hostname", "bind,rprivate"),
    ]


def test_the_default_masks_and_read_only_paths_are_the_table():
    linux = compose()["linux"]
    proc = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats"
    sys = "firmware dev/block devices/virtual/powercap devices/system/cpu/cpu0/thermal_throttle"
    assert linux["maskedPaths"] == [f"/proc/{name}" for name in proc.split()] + [
        f"/sys/{name}" for name in sys.split()
    ]
    assert linux["readonlyPaths"] == [
        f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")
    ]
    assert linux["rootfsPropagation"] == "rprivate"


def test_the_default_devices_and_their_rules_are_the_table():
    linux = compose()["linux"]
    assert [
        (node["path"], node["type"], node["major"], node["minor"], node["fileMode"])
        for node in linux["devices"]
    ] == [
        ("/dev/null", "c", 1, 3, 0o666),
        ("/dev/zero", "c", 1, 5, 0o666),
        ("/dev/full", "c", 1, 7, 0o666),
        ("/dev/random", "c", 1, 8, 0o666),
        ("/dev/urandom", "c", 1, 9, 0o666),
        ("/dev/tty", "c", 5, 0, 0o666),
    ]
    rules = linux["resources"]["devices"]
    assert rules[:3] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "access": "m"},
        {"allow": True, "type": "c", "access": "m"},
    ]
    assert [(rule["major"], rule.get("minor")) for rule in rules[3:]] == [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
        (136, None),
    ]
    assert all(rule["access"] == "rwm" and rule["type"] == "c" for rule in rules[3:])


def test_user_mounts_come_last_those_nearer_the_root_first():
    config = compose(mounts=[bind("/a/b/c"), tmpfs("/z"), bind("/a"), bind("/b/c"), tmpfs("/a/b")])
    destinations = [entry["destination"] for entry in config["mounts"][-5:]]
    assert destinations == ["/z", "/a", "/b/c", "/a/b", "/a/b/c"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["rbind", "rprivate"]),
        (["ro"], ["rbind", "rprivate", "ro"]),
        (["rw", "z", "nocopy"], ["rbind", "rprivate"]),
        (["rslave", "ro"], ["rbind", "rslave", "ro"]),
        (["bind", "shared"], ["bind", "shared"]),
        (["rro", "noexec"], ["rbind", "rprivate", "rro", "noexec"]),
    ],
)
def test_the_words_of_a_volume(words, expected):
    assert options_at(compose(mounts=[bind("/v", *words)]), "/v") == expected
    assert mount(compose(mounts=[bind("/v", *words)]), "/v")["source"] == "/src"


def test_read_only_covers_what_lies_below_where_the_kernel_can():
    host = {**HOST, "recursive_readonly": True}
    assert options_at(compose(host, mounts=[bind("/v", "ro")]), "/v")[-1] == "rro"
    assert options_at(compose(host, mounts=[bind("/v", "ro", "bind")]), "/v")[-1] == "ro"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "nosuid,noexec,nodev"),
        (["size=64m", "mode=1770"], "nosuid,noexec,nodev,size=64m,mode=1770"),
        (["exec", "ro"], "nosuid,nodev,exec,ro"),
        (["ro", "rw"], "nosuid,noexec,nodev"),
        (["suid", "dev", "exec"], "suid,dev,exec"),
        (["size=1k", "size=2k"], "nosuid,noexec,nodev,size=2k"),
        (["exec", "noexec"], "nosuid,nodev,noexec"),
        (["noatime", "uid=5"], "nosuid,noexec,nodev,noatime,uid=5"),
    ],
)
def test_the_words_of_a_tmpfs(words, expected):
    found = mount(compose(mounts=[tmpfs("/t", *words)]), "/t")
    assert (found["type"], ",".join(found["options"])) == ("tmpfs", expected)


def test_unknown_words_are_refused():
    assert refusal(mounts=[bind("/v", "rox")]) == 'invalid mount option "rox" for /v'
    assert refusal(mounts=[tmpfs("/v", "lowerdir=/")]) == (
        'invalid tmpfs option "lowerdir=/" for /v'
    )
    assert refusal(mounts=[tmpfs("/v", "size=")]) == 'invalid tmpfs option "size=" for /v'


def test_impossible_mount_points_are_refused():
    assert refusal(mounts=[bind("/x"), tmpfs("/x/")]) == "Duplicate mount point: /x"
    assert "the destination can't be '/'" in refusal(mounts=[bind("/")])
    assert "the destination can't be '/'" in refusal(mounts=[bind("//a/..")])
    assert "must be absolute" in refusal(mounts=[bind("x")])
    assert "must be absolute" in refusal(mounts=[bind("/x", source="name")])
    assert "not supported yet" in refusal(mounts=[{**bind("/x"), "type": "volume"}])


def test_a_mount_of_the_users_takes_the_place_of_ours():
    config = compose(mounts=[bind("/etc/hosts"), tmpfs("/dev/shm", "size=1m")])
    assert mount(config, "/etc/hosts")["source"] == "/src"
    assert options_at(config, "/dev/shm") == ["nosuid", "noexec", "nodev", "size=1m"]


def test_a_mount_at_dev_takes_the_place_of_all_below_it():
    config = compose(mounts=[bind("/dev")])
    assert [e["destination"] for e in config["mounts"] if e["destination"].startswith("/dev")] == [
        "/dev"
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([["ro"]], "rprivate"),
        ([["slave"]], "rslave"),
        ([["rslave"], ["rshared"]], "rshared"),
        ([["private"]], "rprivate"),
    ],
)
def test_the_root_is_as_open_as_a_volume_needs_it(words, expected):
    mounts = [bind(f"/{index}", *listed) for index, listed in enumerate(words)]
    assert compose(mounts=mounts)["linux"]["rootfsPropagation"] == expected


def test_shm_size():
    assert "size=1048576" in options_at(compose(shm_size=1 << 20), "/dev/shm")


def test_ipc_host_shows_the_hosts_shared_memory_and_queues():
    config = compose(ipc="host")
    shm = mount(config, "/dev/shm")
    assert (shm["type"], shm["source"]) == ("bind", "/dev/shm")
    assert shm["options"] == ["rbind", "nosuid", "noexec", "nodev"]
    assert mount(config, "/dev/mqueue")["type"] == "mqueue", "a new mount shows the same queues"


@pytest.mark.parametrize("there", [True, False])
def test_in_a_user_namespace_the_hosts_queues_are_bound_if_it_has_any(there):
    found = mount(compose({**ROOTLESS, "mqueue": there}, ipc="host"), "/dev/mqueue")
    assert (found and found["type"]) == ("bind" if there else None)


@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_what_is_joined_with_its_user_namespace_can_be_mounted(kind):
    joined = {"user": "/proc/7/ns/user", kind: f"/proc/7/ns/{kind}"}
    config = compose({**ROOTLESS, "namespaces": joined}, **{kind: "container:x"})
    assert mount(config, "/proc")["type"] == "proc"
    assert mount(config, "/dev/mqueue")["type"] == "mqueue"
    assert "uidMappings" not in config["linux"]


def test_ipc_none_has_no_shared_memory():
    config = compose(ipc="none")
    assert mount(config, "/dev/shm") is None
    assert "ipc" in kinds(config)


def test_ipc_of_a_container_shares_its_shared_memory():
    host = {**HOST, "namespaces": {"ipc": "/proc/7/ns/ipc"}, "shm": "/proc/7/root/dev/shm"}
    found = mount(compose(host, ipc="container:x"), "/dev/shm")
    assert (found["type"], found["source"]) == ("bind", "/proc/7/root/dev/shm")


def test_read_only():
    config = compose(read_only=True)
    assert config["root"]["readonly"] is True
    assert "ro" in options_at(config, "/etc/hosts")
    assert "ro" not in options_at(config, "/dev")
    assert "ro" not in options_at(config, "/dev/shm")


def test_in_a_user_namespace_gid_5_is_used_only_where_it_is_mapped():
    assert "gid=5" in options_at(compose(ROOTLESS), "/dev/pts")
    single = {**ROOTLESS, "uid_mappings": ONE_ID, "gid_mappings": ONE_ID}
    assert "gid=5" not in options_at(compose(single), "/dev/pts")


def test_in_a_user_namespace_what_is_not_owned_is_bound():
    config = compose(ROOTLESS, network="host", ipc="host", pid="host", cgroupns="host")
    assert mount(config, "/sys")["options"] == ["rbind", "rro", "nosuid", "noexec", "nodev"]
    assert mount(config, "/proc")["options"] == ["rbind", "nosuid", "noexec", "nodev"]
    assert mount(config, "/sys/fs/cgroup")["options"][:2] == ["rbind", "rro"]


@pytest.mark.parametrize(
    ("mode", "fstype"), [("v2", "cgroup"), ("hybrid", "bind"), ("none", "bind")]
)
def test_rootless_mounts_cgroups_only_where_it_may(mode, fstype):
    assert mount(compose({**ROOTLESS, "cgroup_mode": mode}), "/sys/fs/cgroup")["type"] == fstype
    assert mount(compose({**HOST, "cgroup_mode": mode}), "/sys/fs/cgroup")["type"] == "cgroup"


def test_privileged_lifts_capabilities_masks_filter_and_read_only_flags():
    sda = {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 0o660}
    null = {"path": "/dev/null", "type": "c", "major": 9, "minor": 9}
    config = compose({**HOST, "devices": [null, sda]}, privileged=True)
    linux = config["linux"]
    assert config["process"]["capabilities"]["bounding"] == list(capabilities.NAMES)
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "ro" not in options_at(config, "/sys") + options_at(config, "/sys/fs/cgroup")
    assert linux["devices"][-1] == sda
    assert linux["devices"][0]["major"] == 1, "the six default nodes stay"


FUSE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}


def test_a_device_is_made_at_its_place_and_allowed():
    host = {**HOST, "device_nodes": {"/dev/fuse": [FUSE]}}
    wanted = {"host": "/dev/fuse", "container": "/dev/other", "permissions": "rw"}
    linux = compose(host, device=[wanted])["linux"]
    assert linux["devices"][-1] == {**FUSE, "path": "/dev/other"}
    assert linux["resources"]["devices"][-1] == {
        "allow": True,
        "type": "c",
        "major": 10,
        "minor": 229,
        "access": "rw",
    }
    in_namespace = {**ROOTLESS, "device_nodes": {"/dev/fuse": [FUSE]}}
    assert compose(in_namespace, device=[wanted])["linux"]["devices"][-1]["source"] == "/dev/fuse"


def test_a_directory_of_devices_keeps_their_names():
    nodes = [{"path": f"/dev/snd/{n}", "type": "c", "major": 116, "minor": n} for n in (1, 2)]
    wanted = {"host": "/dev/snd", "container": "/dev/sound", "permissions": "rwm"}
    config = compose({**HOST, "device_nodes": {"/dev/snd": nodes}}, device=[wanted])
    paths = [node["path"] for node in config["linux"]["devices"][-2:]]
    assert paths == ["/dev/sound/1", "/dev/sound/2"]


def test_a_missing_device_is_refused():
    wanted = {"host": "/dev/nope", "container": "/dev/nope", "permissions": "rwm"}
    assert refusal(device=[wanted]) == '--device "/dev/nope": no such device on the host'


def test_device_rules_are_appended():
    rules = compose(device_cgroup_rule=["c 10:* rw", "b *:* m"])["linux"]["resources"]["devices"]
    assert rules[-2:] == [
        {"allow": True, "type": "c", "access": "rw", "major": 10},
        {"allow": True, "type": "b", "access": "m"},
    ]
    for text in ("c 10 rw", "x 1:2 r", "c 1:2 x", "c 1:2", "c ٣:1 r", "c 1:2 "):
        assert refusal(device_cgroup_rule=[text]) == f"invalid device cgroup format '{text}'"


def test_system_paths_can_be_left_open():
    linux = compose(security_opt=["systempaths=unconfined"])["linux"]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
