"""What is decided about cgroups before anything is touched: layouts, values, order."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import Error
from minicontainer.primitives import cgroup_files, cgroup_limits, cgroup_v2, cgroups
from minicontainer.primitives.cgroup_layout import choose, parse_mounts, parse_own
from minicontainer.primitives.cgroup_v1 import Legacy

MIB = 1 << 20

# mountinfo of machines as they are found; the third field is the device.
V2 = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
26 22 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 \
rw,nsdelegate,memory_recursiveprot
"""
CO_MOUNTED = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:12 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/net_cls,net_prio rw shared:13 - cgroup cgroup rw,net_cls,net_prio
36 31 0:33 / /sys/fs/cgroup/memory rw,nosuid shared:14 - cgroup cgroup rw,memory,clone_children
37 31 0:34 / /sys/fs/cgroup/debug rw,nosuid shared:15 - cgroup cgroup rw,name=other
"""
ALL_IN_ONE = "30 1 0:30 / /cgroup rw - cgroup none rw,cpu,memory,freezer,release_agent=/x\n"
BOUND = """\
700 690 0:29 /../.. /host/cgroup/cpu rw - cgroup cgroup rw,cpu
701 690 0:29 /docker/other /var/other rw - cgroup cgroup rw,cpu
702 690 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
703 690 0:31 / /odd\\040place/mem\\134ory rw - cgroup cgroup rw,memory
"""


def layout_of(mountinfo: str, own: str = "") -> cgroups.Layout:
    return choose([m for m in parse_mounts(mountinfo) if not m.read_only], parse_own(own))


@pytest.fixture
def anything_is_writable(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_, **__: True)


@pytest.mark.usefixtures("anything_is_writable")
def test_a_v2_host_has_one_directory_for_all():
    assert layout_of(V2) == ("v2", {}, "/sys/fs/cgroup")


@pytest.mark.usefixtures("anything_is_writable")
def test_a_hybrid_host_has_v1_hierarchies_and_v2_beside_them():
    mode, controllers, unified = layout_of(CO_MOUNTED)
    assert (mode, unified) == ("hybrid", "/sys/fs/cgroup/unified")
    assert controllers == {
        "systemd": "/sys/fs/cgroup/systemd",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "net_cls": "/sys/fs/cgroup/net_cls,net_prio",
        "net_prio": "/sys/fs/cgroup/net_cls,net_prio",
        "memory": "/sys/fs/cgroup/memory",
    }


def test_all_v1_controllers_may_share_one_hierarchy():
    point = {"cpu": "/cgroup", "memory": "/cgroup", "freezer": "/cgroup"}
    assert layout_of(ALL_IN_ONE) == ("v1", point, None)


def test_co_mounted_controllers_are_one_directory():
    group = Legacy({"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "pids": "/c/pids"}, "/a")
    assert group.all_directories() == ["/c/cpu,cpuacct/a", "/c/pids/a"]
    assert group.named_directories()["cpuacct"] == "/c/cpu,cpuacct/a"


def test_systemds_hierarchy_alone_is_no_layout():
    line = "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    assert layout_of(line) == ("none", {}, None)


def test_no_cgroups_at_all():
    assert layout_of("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n") == (
        "none",
        {},
        None,
    )


def test_the_mount_that_we_are_below_is_preferred():
    own = "4:memory:/docker/abc\n3:cpu:/docker/abc/inner\n0::/\n"
    assert layout_of(BOUND, own).controllers == {
        "cpu": "/sys/fs/cgroup/cpu",
        "memory": "/odd place/mem\\ory",
    }


def test_read_only_mounts_do_not_count():
    assert [mount.read_only for mount in parse_mounts(V2.replace(" rw,nsdelegate", " ro"))] == [
        True
    ]
    assert [mount.read_only for mount in parse_mounts(V2.replace(" rw,nosuid", " ro,x"))] == [True]


def test_our_own_groups_by_controller():
    text = "5:cpu,cpuacct:/a\n2:name=systemd:/user:slice\n0::/b\n"
    assert parse_own(text) == {"cpu": "/a", "cpuacct": "/a", "systemd": "/user:slice", "": "/b"}


@pytest.mark.parametrize(
    ("writable", "expected"),
    [
        (("/user/me", "/user/me/app", "/user/me/app/x"), "/cg/user/me"),
        (("/user/me/app/x",), "/cg/user/me/app/x"),
        (("/user/me", "/user/me/app/x"), "/cg/user/me/app/x"),
        (("/user/me", "/user/me/app"), None),
        ((), None),
    ],
)
def test_the_delegated_group_is_the_highest_writable_one_without_a_gap(
    monkeypatch, writable, expected
):
    allowed = {f"/cg{path}{file}" for path in writable for file in ("", "/cgroup.procs")}
    monkeypatch.setattr(os, "access", lambda path, _: path in allowed)
    line = "26 22 0:24 / /cg rw - cgroup2 cgroup2 rw\n"
    assert layout_of(line, "0::/user/me/app/x\n").unified == expected


def test_a_delegated_group_is_found_below_a_bound_part(monkeypatch):
    allowed = {"/cg/app", "/cg/app/cgroup.procs"}
    monkeypatch.setattr(os, "access", lambda path, _: path in allowed)
    line = "26 22 0:24 /user/me /cg rw - cgroup2 cgroup2 rw\n"
    assert layout_of(line, "0::/user/me/app\n").unified == "/cg/app"
    assert layout_of(line, "0::/user/meanwhile/app\n").unified is None


# ------------------------------------------------------------------------------------- limits


def test_zero_and_empty_are_not_set_and_negative_is_unlimited():
    assert cgroup_limits.asked({}) == {}
    assert cgroup_limits.asked({"memory": None, "cpu": {"shares": 0, "cpus": ""}}) == {}
    assert cgroup_limits.asked({"pids": {"limit": 0}}) == {"pids": -1}
    assert cgroup_limits.asked({"pids": {"limit": -7}, "cpu": {"quota": -2}}) == {
        "quota": -1,
        "pids": -1,
    }
    assert cgroup_limits.asked({"memory": {"limit": -1}}) == {"memory": -1, "swap": -1}


def test_memory_and_swap_cannot_be_less_than_memory():
    with pytest.raises(Error, match="below the memory limit 20"):
        cgroup_limits.asked({"memory": {"limit": 20, "swap": 10}})


def test_limits_come_in_the_order_the_kernel_wants_on_a_new_group():
    resources = {
        "pids": {"limit": 5},
        "cpu": {"quota": 1, "period": 2},
        "memory": {"swap": 9, "limit": 8},
    }
    names = list(cgroup_limits.asked(resources))
    assert names == ["memory", "swap", "period", "quota", "pids"]


def test_v1_files_and_values():
    group = Legacy({"memory": "/m", "cpu": "/c", "cpuset": "/s", "pids": "/p"}, "/x")
    limits = cgroup_limits.asked(
        {
            "memory": {"limit": 10, "swap": -1, "reservation": 5},
            "cpu": {"shares": 2, "quota": -1, "period": 1000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": -1},
        }
    )
    assert group.writes(limits, True) == [
        ("memory", "/m/x/memory.limit_in_bytes", "10"),
        ("swap", "/m/x/memory.memsw.limit_in_bytes", "-1"),
        ("reservation", "/m/x/memory.soft_limit_in_bytes", "5"),
        ("shares", "/c/x/cpu.shares", "2"),
        ("period", "/c/x/cpu.cfs_period_us", "1000"),
        ("quota", "/c/x/cpu.cfs_quota_us", "-1"),
        ("cpus", "/s/x/cpuset.cpus", "0-1"),
        ("mems", "/s/x/cpuset.mems", "0"),
        ("pids", "/p/x/pids.max", "max"),
    ]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory": 10 * MIB}, [("memory", "memory.max", "10485760")]),
        ({"memory": -1}, [("memory", "memory.max", "max")]),
        (
            {"memory": 10, "swap": 30},
            [("memory", "memory.max", "10"), ("swap", "memory.swap.max", "20")],
        ),
        (
            {"memory": 10, "swap": 10},
            [("memory", "memory.max", "10"), ("swap", "memory.swap.max", "0")],
        ),
        (
            {"memory": 10, "swap": -1},
            [("memory", "memory.max", "10"), ("swap", "memory.swap.max", "max")],
        ),
        ({"swap": 150}, [("swap", "memory.swap.max", "50")]),
        ({"reservation": 7}, [("reservation", "memory.low", "7")]),
        ({"reservation": -1}, [("reservation", "memory.low", "0")]),
        ({"shares": 1024}, [("shares", "cpu.weight", "100")]),
        ({"quota": 50000}, [("quota", "cpu.max", "50000 20000")]),
        ({"quota": 50000, "period": 100000}, [("quota", "cpu.max", "50000 100000")]),
        ({"quota": -1}, [("quota", "cpu.max", "max 20000")]),
        ({"period": 1000}, [("period", "cpu.max", "700 1000")]),
        (
            {"cpus": "0-1", "mems": "0"},
            [("cpus", "cpuset.cpus", "0-1"), ("mems", "cpuset.mems", "0")],
        ),
        ({"pids": 20}, [("pids", "pids.max", "20")]),
        ({"pids": -1}, [("pids", "pids.max", "max")]),
    ],
)
def test_v2_files_and_values(limits, expected):
    assert cgroup_v2.encode(limits, 100, ("700", "20000")) == expected


def test_swap_needs_a_memory_limit_on_v2():
    with pytest.raises(Error, match="needs a memory limit"):
        cgroup_v2.encode({"swap": 100}, cgroup_limits.UNLIMITED, ("max", "100000"))


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(1, 1), (2, 1), (102, 17), (512, 59), (1024, 100), (2000, 170), (2048, 174), (262144, 10000)],
)
def test_shares_become_weights_as_in_runc_and_crun(shares, weight):
    assert cgroup_limits.weight(shares) == weight


@given(st.integers(2, 262144), st.integers(2, 262144))
def test_more_shares_never_weigh_less(one, other):
    low, high = sorted((one, other))
    assert 1 <= cgroup_limits.weight(low) <= cgroup_limits.weight(high) <= 10000


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("0-2", {0, 1, 2}), ("0,2-3,9", {0, 2, 3, 9}), ("1-1", {1}), ("0,0", {0})],
)
def test_lists_of_cpus_are_read_as_the_kernel_writes_them(text, numbers):
    assert cgroup_limits.parse_list(text) == numbers


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "-1", "1-", "2-1", "a", "0 1", "0x1", "+1", "1_0", "٣", "0-99999999"]
)
def test_anything_else_is_no_list(text):
    with pytest.raises(ValueError, match=r".*"):
        cgroup_limits.parse_list(text)
    with pytest.raises(Error, match=r"cpuset cpus: .* accepted: within 0-3"):
        cgroup_limits.check_list("cpus", text, "0-3")


@given(st.text(max_size=12))
def test_no_text_makes_the_list_reader_fail_in_another_way(text):
    try:
        numbers = cgroup_limits.parse_list(text)
    except ValueError:
        return
    assert numbers
    assert all(0 <= number <= 65535 for number in numbers)


def test_cpus_outside_of_the_host_are_refused_by_name():
    cgroup_limits.check_list("cpus", "0-1", "0-3")
    with pytest.raises(Error, match=r'cpuset cpus: "2-4" is not available here; .* within 0-3'):
        cgroup_limits.check_list("cpus", "2-4", "0-3")


def test_a_sentence_for_each_limit():
    assert cgroup_limits.sentence("memory", 64) == "set the memory limit to 64"
    assert cgroup_limits.sentence("pids", -1) == "set the pids limit to unlimited"


# ------------------------------------------------------------------------- writing, in general


def control_files(tmp_path, **contents):
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return str(tmp_path)


def test_control_files_are_read_as_numbers_and_tables(tmp_path):
    text = "anon 5\nodd line here\nfile 7\n"
    directory = control_files(tmp_path, number="42\n", unlimited="max\n", table=text, nothing="")
    assert cgroup_files.number(f"{directory}/number") == 42
    assert cgroup_files.number(f"{directory}/unlimited") == -1
    assert cgroup_files.number(f"{directory}/nothing", 3) == 3
    assert cgroup_files.number(f"{directory}/absent", 4) == 4
    assert cgroup_files.flat(f"{directory}/table") == {"anon": 5, "file": 7}
    assert cgroup_files.flat(f"{directory}/absent") == {}


def test_bytes_moved_are_summed_over_devices():
    text = "8:0 rbytes=10 wbytes=1 rios=3\n8:16 rbytes=5 wbytes=2 dbytes=9\n253:0 \n"
    assert cgroup_v2.sum_of(text, "rbytes") == 15
    assert cgroup_v2.sum_of(text, "wbytes") == 3
    assert cgroup_v2.sum_of("", "wbytes") == 0


class Memory:
    """Stands for the kernel's rule: memory may never be above memory and swap."""

    def __init__(self, memory, swap):
        self.values = {"memory": memory, "swap": swap}
        self.log = []

    def write_file(self, path, text):
        wanted = {**self.values, path: int(text)}
        if wanted["memory"] > wanted["swap"]:
            self.log.append(f"{path} refused")
            raise OSError(22, "Invalid argument")
        self.values = wanted
        self.log.append(path)


@pytest.mark.parametrize(
    ("before", "after", "log"),
    [
        ((9000, 9000), (10, 20), ["memory", "swap"]),
        ((10, 20), (5, 6), ["memory", "swap"]),
        ((10, 20), (30, 40), ["memory refused", "swap", "memory"]),
        ((10, 20), (20, 30), ["memory", "swap"]),
    ],
)
def test_memory_and_swap_are_changed_in_an_order_that_is_always_valid(
    monkeypatch, before, after, log
):
    memory = Memory(*before)
    monkeypatch.setattr(cgroups.kernel, "write_file", memory.write_file)
    asked = dict(zip(("memory", "swap"), after))
    writes = [(name, name, str(value)) for name, value in asked.items()]
    assert cgroups._write_all(writes, asked) == []
    assert memory.values == asked
    assert memory.log == log


def test_what_is_refused_both_times_is_an_error_with_the_sentence(monkeypatch):
    monkeypatch.setattr(cgroups.kernel, "write_file", Memory(10, 20).write_file)
    with pytest.raises(Error, match=r"set the memory limit to 30: .*EINVAL"):
        cgroups._write_all([("memory", "memory", "30")], {"memory": 30})


def test_without_any_hierarchy_a_group_is_empty_and_harmless():
    group = cgroups.create(cgroups.Layout("none", {}, None), "/minicontainer/x", {})
    group.join()
    assert group.pids() == []
    assert group.empty()
    assert not group.frozen()
    assert not group.oom_killed()
    assert group.directories() == {}
    assert group.stats()["memory_usage"] == 0
    group.thaw()
    group.kill()
    group.delete()
    with pytest.raises(Error, match="freezer"):
        group.freeze()
