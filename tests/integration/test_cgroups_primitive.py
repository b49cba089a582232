"""Groups of the real kernel, whatever its layout: the host's, and cgroup v2 in the machine."""

from __future__ import annotations

import os
import signal
import time

import pytest

from minicontainer.errors import CleanupError, Error
from minicontainer.primitives import cgroups
from minicontainer.primitives.cgroups import Layout
from tests.support import groups
from tests.support.groups import MIB

pytestmark = [
    pytest.mark.root,
    pytest.mark.cgroup,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def layout():
    return groups.detect()


@pytest.fixture
def parent(layout):
    with groups.parent_of_groups(layout) as path:
        yield path


@pytest.fixture
def processes(layout, parent):
    with groups.starter(layout, parent) as start:
        yield start


# --------------------------------------------------------------------------------- membership


def test_a_process_that_joins_is_in_every_directory_of_the_group(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/a", {})
    child = processes(group, "print(open('/proc/self/cgroup').read())")
    seen = set()
    for line in child.stdout.read().decode().strip().splitlines():
        _, names, path = line.split(":", 2)
        if path.endswith(f"{parent}/a"):
            seen.update(names.replace("name=", "").split(",") if names else ["unified"])
    assert seen == set(group.directories())


def test_the_processes_of_a_group_are_listed_with_those_of_nested_groups(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/a", {})
    nested = cgroups.create(layout, f"{parent}/a/b", {})
    assert group.pids() == []
    assert group.empty()
    children = {processes(group, groups.SPIN).pid} if layout.mode != "v2" else set()
    children.add(processes(nested, groups.SPIN).pid)
    assert set(group.pids()) == children
    assert not group.empty()


def test_a_group_is_found_again_by_its_path_alone(layout, parent, processes):
    cgroups.create(layout, f"{parent}/a", {"pids": {"limit": 7}})
    again = cgroups.open_group(cgroups.detect(), f"{parent}/a")
    child = processes(again, groups.SPIN)
    assert again.pids() == [child.pid]
    assert cgroups.children(layout, parent) == ["a"]


def test_joining_a_group_that_is_gone_is_an_error(layout, parent):
    gone = cgroups.open_group(layout, f"{parent}/never")
    assert gone.pids() == []
    gone.kill()
    gone.delete()
    with pytest.raises(Error, match="does not exist"):
        gone.join()


def test_where_a_v2_group_may_have_no_processes_one_joins_those_of_a_nested_group(
    layout, parent, processes
):
    """As it is after a systemd in the container has arranged its groups."""
    if layout.mode != "v2":
        pytest.skip("cgroup v1 has no such rule")
    group = cgroups.create(layout, f"{parent}/a", {})
    nested = cgroups.create(layout, f"{parent}/a/init", {"pids": {"limit": 9}})
    processes(nested, groups.SPIN)
    assert groups.in_child(groups.groups_inside, group) == f"0::{parent}/a/init\n"
    nested.kill()
    with pytest.raises(AssertionError, match="EBUSY"):
        groups.in_child(groups.groups_inside, group)


def test_many_groups_made_at_once_below_a_new_parent_all_accept_processes(layout, parent):
    def one(name):
        group = cgroups.create(layout, f"{parent}/many/{name}", {"pids": {"limit": 50}})
        group.join()

    for round_number in range(3):
        pids = []
        for number in range(6):
            pid = os.fork()
            if pid == 0:
                try:
                    one(str(number))
                except BaseException as failure:
                    os.write(2, f"{failure}\n".encode())
                    os._exit(1)
                os._exit(0)
            pids.append(pid)
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        assert statuses == [0] * len(pids), f"round {round_number}"
        cgroups.open_group(layout, f"{parent}/many").delete()


# ------------------------------------------------------------------------------------- limits


def test_a_hog_is_killed_at_the_memory_limit_and_the_group_knows(layout, parent, processes):
    groups.need(layout, "memory")
    resources = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}
    group = cgroups.create(layout, f"{parent}/hog", resources, tolerate=("swap",))
    assert not group.oom_killed()
    hog = processes(group, groups.HOG % (128 * MIB))
    hog.wait(30)
    assert hog.returncode == -signal.SIGKILL
    assert group.oom_killed()
    assert cgroups.open_group(layout, group.path).oom_killed()


def test_a_process_below_the_memory_limit_is_left_alone(layout, parent, processes):
    groups.need(layout, "memory")
    group = cgroups.create(layout, f"{parent}/ok", {"memory": {"limit": 128 * MIB}})
    child = processes(group, groups.HOG % (48 * MIB))
    assert child.communicate()[0] == b"lived\n"
    assert not group.oom_killed()


def test_half_a_cpu_is_half_a_cpu(layout, parent, processes):
    groups.need(layout, "cpu")
    group = cgroups.create(layout, f"{parent}/half", {"cpu": {"quota": 50000, "period": 100000}})
    processes(group, groups.SPIN)
    processes(group, groups.SPIN)
    time.sleep(0.3)
    before, started = group.stats()["cpu_ns"], time.monotonic()
    time.sleep(1.5)
    share = (group.stats()["cpu_ns"] - before) / 1e9 / (time.monotonic() - started)
    assert 0.2 < share < 0.75, share


def test_a_fork_bomb_stays_within_the_pids_limit(layout, parent, processes):
    groups.need(layout, "pids")
    group = cgroups.create(layout, f"{parent}/bomb", {"pids": {"limit": 20}})
    processes(group, groups.BOMB)
    groups.wait_for(lambda: group.stats()["pids"] == 20)
    for _ in range(20):
        assert group.stats()["pids"] <= 20
        assert len(group.pids()) <= 20
        time.sleep(0.01)


def test_cpus_and_nodes_are_set_and_others_are_refused_with_the_range(layout, parent):
    groups.need(layout, "cpuset")
    group = cgroups.create(layout, f"{parent}/one", {"cpu": {"cpus": "0", "mems": "0"}})
    assert groups.value(group, "cpus") == "0"
    assert groups.in_child(lambda: (group.join(), os.sched_getaffinity(0))[1]) == {0}
    for wrong in ("4000", "0-", "x", "0,,1", "1-0"):
        with pytest.raises(Error, match="accepted: within 0"):
            cgroups.create(layout, f"{parent}/wrong", {"cpu": {"cpus": wrong}})
    assert cgroups.children(layout, parent) == ["one"]


def test_shares_are_a_share_on_v1_and_a_weight_on_v2(layout, parent):
    groups.need(layout, "cpu")
    group = cgroups.create(layout, f"{parent}/shares", {"cpu": {"shares": 2048}})
    assert groups.value(group, "shares") == ("2048" if "cpu" in layout.controllers else "174")


def test_limits_are_changed_up_and_down_and_what_is_not_named_stays(layout, parent):
    groups.need(layout, "memory")
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 128 * MIB},
        "cpu": {"quota": 50000, "period": 100000},
        "pids": {"limit": 20},
    }
    group = cgroups.create(layout, f"{parent}/update", resources, tolerate=("swap",))
    on_v1 = "memory" in layout.controllers
    for memory, swap in ((512, 1024), (32, 32), (32, 64), (600, -1), (64, 128), (-1, -1), (48, 96)):
        megabytes = {"limit": memory * MIB, "swap": swap * MIB}
        group.update({"memory": megabytes}, tolerate=("swap",))
        if memory > 0:
            assert groups.value(group, "memory") == str(memory * MIB)
        if swap > 0 and groups.has_swap_accounting(group):
            assert groups.value(group, "swap") == str((swap if on_v1 else swap - memory) * MIB)
    assert groups.value(group, "pids") == "20"
    group.update({"pids": {"limit": -1}, "cpu": {"quota": 20000}})
    assert groups.value(group, "pids") == "max"
    assert groups.value(group, "quota") in ("20000", "20000 100000")
    group.update({"cpu": {"period": 50000}})
    assert groups.value(group, "period") in ("50000", "20000 50000")
    group.update({"cpu": {"quota": -1}})
    assert groups.value(group, "quota") in ("-1", "max 50000")


def test_memory_in_use_is_not_taken_away_by_an_update(layout, parent, processes):
    groups.need(layout, "memory")
    group = cgroups.create(layout, f"{parent}/used", {"memory": {"limit": 256 * MIB}})
    child = processes(group, (groups.HOG % (64 * MIB)) + "\nimport time; time.sleep(60)")
    groups.wait_for(lambda: group.stats()["memory_usage"] > 60 * MIB)
    with pytest.raises(Error, match="memory limit") as caught:
        group.update({"memory": {"limit": 16 * MIB}})
    assert caught.value.hint
    assert groups.value(group, "memory") == str(256 * MIB)
    assert child.poll() is None
    assert not group.oom_killed()


def test_a_limit_without_its_controller_is_an_error_that_names_it(layout, parent):
    without = layout._replace(
        mode="none", controllers={"systemd": layout.controllers.get("systemd", "")}, unified=None
    )
    if not layout.controllers.get("systemd"):
        without = Layout("none", {}, None)
    for resources, controller in (
        ({"memory": {"limit": 64 * MIB}}, "memory"),
        ({"cpu": {"quota": 50000}}, "cpu"),
        ({"cpu": {"cpus": "0"}}, "cpuset"),
        ({"pids": {"limit": 5}}, "pids"),
    ):
        with pytest.raises(Error, match=f"the {controller} controller is not available") as caught:
            cgroups.create(without, f"{parent}/limited", resources)
        assert caught.value.hint
        assert cgroups.children(layout, parent) == []
        name = {"memory": "memory", "cpu": "quota", "cpuset": "cpus", "pids": "pids"}[controller]
        group = cgroups.create(without, f"{parent}/limited", resources, strict=False)
        assert group.unenforced == [name]
        group.delete()
        group = cgroups.create(without, f"{parent}/limited", resources, tolerate=(name,))
        assert group.unenforced == []
        group.delete()


def test_a_controller_that_this_kernel_lacks_is_named(layout, parent):
    if groups.has(layout, "cpuset"):
        pytest.skip("this kernel has all controllers")
    with pytest.raises(Error, match="the cpuset controller is not available") as caught:
        cgroups.create(layout, f"{parent}/set", {"cpu": {"cpus": "0"}})
    assert caught.value.hint == "this kernel was built without it"
    assert cgroups.children(layout, parent) == []


def test_no_limit_can_be_had_below_a_v2_group_with_processes(layout, parent, processes):
    if layout.mode != "v2":
        pytest.skip("cgroup v1 has no such rule")
    crowded = cgroups.create(layout, f"{parent}/crowded", {})
    processes(crowded, groups.SPIN)
    with pytest.raises(Error, match=rf"{crowded.path} has processes of its own") as caught:
        cgroups.create(layout, f"{parent}/crowded/inner", {"memory": {"limit": 64 * MIB}})
    assert "cgroup.procs" in caught.value.hint
    assert cgroups.children(layout, crowded.path) == []
    # Without limits it serves: its processes can be counted, frozen and killed.
    inner = cgroups.create(layout, f"{parent}/crowded/inner", {})
    child = processes(inner, groups.SPIN)
    assert inner.pids() == [child.pid]
    with pytest.raises(Error, match=rf"{crowded.path} has processes of its own"):
        inner.update({"pids": {"limit": 5}})
    inner.freeze()
    inner.kill()
    assert child.wait(5) == -signal.SIGKILL


def test_raw_files_of_v2_are_written_there_and_refused_elsewhere(layout, parent):
    resources = {"unified": {"memory.high": str(100 * MIB)}}
    if layout.mode == "v2":
        group = cgroups.create(layout, f"{parent}/raw", resources)
        with open(f"{group.directories()['unified']}/memory.high") as file:
            assert file.read() == f"{100 * MIB}\n"
        resources = {"unified": {"../memory.high": "1"}}
    with pytest.raises(Error, match=r"memory\.high"):
        cgroups.create(layout, f"{parent}/raw2", resources)


def test_statistics_count_what_the_group_uses(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/stats", {"memory": {"limit": 256 * MIB}})
    processes(group, (groups.HOG % (32 * MIB)) + "\nwhile True: pass")
    groups.wait_for(lambda: group.stats()["memory_usage"] > 32 * MIB)
    groups.wait_for(lambda: group.stats()["cpu_ns"] > 50_000_000)
    stats = group.stats()
    assert stats["memory_limit"] == 256 * MIB
    assert stats["memory_usage"] < 64 * MIB
    assert stats["pids"] == 1
    assert stats["online_cpus"] == os.cpu_count()
    assert min(stats["blkio_read"], stats["blkio_write"]) >= 0
    unlimited = cgroups.create(layout, f"{parent}/stats2", {}).stats()
    assert unlimited["memory_limit"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# -------------------------------------------------------------------------- freezing, killing


def test_a_frozen_group_uses_no_cpu_until_it_is_thawed(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/ice", {})
    processes(group, groups.SPIN)
    assert not group.frozen()
    group.freeze()
    assert group.frozen()
    before = group.stats()["cpu_ns"]
    time.sleep(0.3)
    assert group.stats()["cpu_ns"] - before < 20_000_000
    group.thaw()
    assert not group.frozen()
    groups.wait_for(lambda: group.stats()["cpu_ns"] - before > 100_000_000)


def test_a_forking_group_can_be_frozen(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/bomb", {"pids": {"limit": 60}})
    processes(group, groups.BOMB)
    groups.wait_for(lambda: group.stats()["pids"] > 30)
    group.freeze()
    assert group.frozen()
    group.kill()


def without_freezer(layout):
    """The v1 groups.hierarchies but the freezer's, and no v2 beside them."""
    controllers = {k: v for k, v in layout.controllers.items() if k != "freezer"}
    return Layout("v1", controllers, None)


def test_kill_outruns_a_fork_bomb(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/bomb", {"pids": {"limit": 150}})
    processes(group, groups.BOMB)
    groups.wait_for(lambda: group.stats()["pids"] > 100, 20)
    group.kill()
    assert group.empty()
    assert group.pids() == []
    group.kill()


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_reaches_nested_and_frozen_groups(layout, parent, processes, frozen):
    group = cgroups.create(layout, f"{parent}/a", {})
    nested = cgroups.create(layout, f"{parent}/a/b/c", {})
    children = [processes(nested, groups.SPIN), processes(nested, "import time; time.sleep(60)")]
    if frozen:
        nested.freeze()
        group.freeze()
    group.kill()
    assert group.empty()
    assert [child.wait(5) for child in children] == [-signal.SIGKILL] * 2
    group.delete()


def test_kill_without_a_freezer_signals_until_none_is_left(layout, parent, processes):
    if layout.mode == "v2":
        pytest.skip("cgroup v2 always has a freezer")
    group = cgroups.create(without_freezer(layout), f"{parent}/a", {"pids": {"limit": 40}})
    assert "freezer" not in group.directories()
    with pytest.raises(Error, match="freezer controller is not available"):
        group.freeze()
    processes(group, groups.BOMB)
    groups.wait_for(lambda: group.stats()["pids"] > 20)
    # The bomb can no longer refill what is killed; without a freezer it could.
    group.update({"pids": {"limit": 1}})
    group.kill()
    assert group.empty()


def test_on_a_hybrid_host_v2_takes_the_place_of_a_missing_freezer(layout, parent, processes):
    if layout.mode != "hybrid":
        pytest.skip("not a hybrid host")
    mixed = without_freezer(layout)._replace(mode="hybrid", unified=layout.unified)
    group = cgroups.create(mixed, f"{parent}/a", {"pids": {"limit": 60}})
    assert {"unified", "pids"} <= group.directories().keys()
    processes(group, groups.BOMB)
    groups.wait_for(lambda: group.stats()["pids"] > 30)
    group.freeze()
    assert group.frozen()
    group.thaw()
    group.kill()
    assert group.empty()
    group.delete()


def test_kill_spares_a_stranger_that_the_group_does_not_list(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/a", {})
    other = cgroups.create(layout, f"{parent}/b", {})
    stranger = processes(other, groups.SPIN)
    victim = processes(group, groups.SPIN)
    group.kill()
    assert victim.wait(5) == -signal.SIGKILL
    assert stranger.poll() is None


# ----------------------------------------------------------------------------------- deletion


def test_delete_removes_nested_groups_and_may_be_repeated(layout, parent):
    group = cgroups.create(layout, f"{parent}/a", {})
    for directory in set(group.directories().values()):
        os.makedirs(f"{directory}/b/c/d")
        os.makedirs(f"{directory}/b2")
    group.delete()
    assert cgroups.children(layout, parent) == []
    group.delete()
    cgroups.open_group(layout, f"{parent}/a").delete()


def test_delete_waits_for_the_dying(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/a", {})
    child = processes(group, "import time; time.sleep(0.5)")
    started = time.monotonic()
    group.delete()
    assert time.monotonic() - started < 2
    assert child.wait(5) == 0


def test_delete_of_a_group_in_use_names_the_processes(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/a", {})
    child = processes(group, groups.SPIN)
    with pytest.raises(CleanupError, match=rf"EBUSY.* {child.pid}") as caught:
        group.delete()
    assert caught.value.causes


def test_a_failed_create_leaves_what_was_there_before(layout, parent, processes):
    group = cgroups.create(layout, f"{parent}/a", {})
    child = processes(group, groups.SPIN)
    with pytest.raises(Error):
        cgroups.create(layout, f"{parent}/a", {"unified": {"no/file": "1"}})
    assert group.pids() == [child.pid]


@pytest.mark.parametrize("path", ["relative", "/", "", "/a/", "/a//b", "/a/../b", "/./a", "/a\nb"])
def test_a_path_that_could_lead_elsewhere_is_refused(layout, path):
    with pytest.raises(Error, match="cgroup path"):
        cgroups.create(layout, path, {})
