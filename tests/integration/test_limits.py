"""Limits on a running container: what the kernel holds and does, on cgroup v1, v2 and hybrid."""

from __future__ import annotations

import os
import re
import time

import pytest

from minicontainer.primitives import cgroups
from tests.support import groups
from tests.support.groups import MIB
from tests.support.runner import Engine, program, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterator

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.lifecycle]

# A buffer of 128 MiB, all of it written to.
HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1")
# Forks as fast as it can, whatever the kernel says to that.
BOMB = ("awk", 'BEGIN { while (1) system("sleep 1000 &") }')
SPIN = "while :; do :; done"

# Where the container itself sees a limit: its files on v1, and on v2.
INSIDE = {
    "memory": ("memory/memory.limit_in_bytes", "memory.max"),
    "swap": ("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
    "reservation": ("memory/memory.soft_limit_in_bytes", "memory.low"),
    "shares": ("cpu/cpu.shares", "cpu.weight"),
    "quota": ("cpu/cpu.cfs_quota_us", "cpu.max"),
    "cpus": ("cpuset/cpuset.cpus", "cpuset.cpus"),
    "pids": ("pids/pids.max", "pids.max"),
}


@pytest.fixture(scope="module")
def layout() -> cgroups.Layout:
    return groups.detect()


@pytest.fixture
def parent(layout: cgroups.Layout) -> Iterator[str]:
    """A path for --cgroup-parent, two levels deep, removed afterwards."""
    top = f"/mc-parent-{os.getpid()}"
    yield f"{top}/jobs"
    left = cgroups.open_group(layout, top)
    left.kill()  # nothing, unless the test has failed
    left.delete()


def group_of(engine: Engine, name: str) -> cgroups.Group:
    """The group of a running container, found by its process and not by what the engine says."""
    layout = cgroups.detect()
    wanted = ("memory", "pids", "")
    with open(f"/proc/{engine.pid(name)}/cgroup", encoding="ascii") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    paths = [path for _, names, path in lines if set(names.split(",")) & set(wanted)]
    return cgroups.open_group(layout, max(paths, key=len))


def seen(engine: Engine, limit: str, *flags: str) -> str:
    """What the container itself reads of a limit."""
    v1, v2 = (f"/sys/fs/cgroup/{name}" for name in INSIDE[limit])
    return engine.sh(f"if [ -e {v2} ]; then cat {v2}; else cat {v1}; fi", *flags).strip()


def throttled(group: cgroups.Group) -> int:
    directories = group.directories()
    with open(f"{directories.get('cpu') or directories['unified']}/cpu.stat") as file:
        return int(next(line.split()[1] for line in file if line.startswith("nr_throttled")))


def refusals(group: cgroups.Group) -> int:
    """How often the kernel refused a fork of the group."""
    directories = group.directories()
    with open(f"{directories.get('pids') or directories['unified']}/pids.events") as file:
        return int(next(line.split()[1] for line in file if line.startswith("max")))


def cpu_ns(group: cgroups.Group) -> int:
    return group.stats()["cpu_ns"]


# ------------------------------------------------------------------------------- memory


def test_memory_hog_is_killed_and_inspect_says_so(engine: Engine) -> None:
    hog = engine.run("run", "--name", "hog", "-m", "32m", "--rootfs", engine.rootfs, *HOG)
    assert hog.returncode == 137
    state = engine.inspect("hog")["State"]
    assert state["OOMKilled"] is True
    assert state["ExitCode"] == 137


def test_process_below_the_memory_limit_is_left_alone(engine: Engine) -> None:
    engine.ok("run", "--name", "ok", "-m", "256m", "--rootfs", engine.rootfs, *HOG)
    assert engine.inspect("ok")["State"]["OOMKilled"] is False


def test_child_killed_for_want_of_memory_counts_also_when_the_command_goes_on(
    engine: Engine,
) -> None:
    script = f"{' '.join(HOG)} 2>/dev/null; echo lives on"
    options = ("--name", "h", "--memory=32m", "--rootfs", engine.rootfs)
    assert engine.ok("run", *options, "sh", "-c", script).endswith("lives on\n")
    assert engine.inspect("h")["State"]["OOMKilled"] is True
    assert engine.inspect("h")["State"]["ExitCode"] == 0


def test_oom_of_an_earlier_run_is_forgotten_by_the_next(engine: Engine) -> None:
    script = f"[ -e /ran ] && exit 0; touch /ran; exec {' '.join(HOG)}"
    engine.run("run", "--name", "h", "-m32m", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert engine.inspect("h")["State"]["OOMKilled"] is True
    engine.run("start", "-a", "h", check=True)
    assert engine.inspect("h")["State"]["OOMKilled"] is False


def test_memory_limit_is_seen_inside(engine: Engine) -> None:
    assert seen(engine, "memory", "--memory", "48m") == str(48 * MIB)


def test_swap_is_as_much_as_memory_unless_told(engine: Engine, layout: cgroups.Layout) -> None:
    expected = 48 * MIB if layout.mode == "v2" else 96 * MIB
    assert seen(engine, "swap", "--memory", "48m") == str(expected)


def test_memory_swap_is_the_sum(engine: Engine, layout: cgroups.Layout) -> None:
    expected = 16 * MIB if layout.mode == "v2" else 64 * MIB
    assert seen(engine, "swap", "--memory", "48m", "--memory-swap", "64m") == str(expected)


def test_memory_swap_may_be_unlimited(engine: Engine) -> None:
    found = seen(engine, "swap", "--memory", "48m", "--memory-swap", "-1")
    assert found == "max" or int(found) > 1 << 60


def test_memory_swap_equal_to_memory_leaves_no_swap(engine: Engine, layout: cgroups.Layout) -> None:
    expected = 0 if layout.mode == "v2" else 48 * MIB
    assert seen(engine, "swap", "--memory", "48m", "--memory-swap", "48m") == str(expected)


def test_memory_reservation_is_seen_inside(engine: Engine) -> None:
    assert seen(engine, "reservation", "--memory-reservation", "24m") == str(24 * MIB)


# ---------------------------------------------------------------------------------- cpu


def test_half_a_cpu_is_half_a_cpu(engine: Engine) -> None:
    engine.detach("--name", "spin", "--cpus", "0.5", command=("sh", "-c", f"{SPIN} & {SPIN}"))
    group = group_of(engine, "spin")
    wait_until(lambda: throttled(group) >= 2, "throttling")
    began, used = time.monotonic_ns(), cpu_ns(group)
    wait_until(lambda: time.monotonic_ns() - began > 1_000_000_000, "one second")
    share = (cpu_ns(group) - used) / (time.monotonic_ns() - began)
    assert share < 0.6  # half of one CPU, though two processes would use two


def test_without_a_limit_nothing_is_throttled(engine: Engine) -> None:
    engine.detach("--name", "spin", command=("sh", "-c", SPIN))
    group = group_of(engine, "spin")
    wait_until(lambda: cpu_ns(group) > 200_000_000, "use of the CPU")
    assert throttled(group) == 0


@pytest.mark.parametrize(
    ("flags", "quota", "period"),
    [
        (("--cpus", "0.5"), 50_000, 100_000),
        (("--cpus=1.25",), 125_000, 100_000),
        (("--cpu-quota", "20000", "--cpu-period", "40000"), 20_000, 40_000),
    ],
)
def test_cpu_quota_is_seen_inside(
    engine: Engine, layout: cgroups.Layout, flags: tuple[str, ...], quota: int, period: int
) -> None:
    if "1.25" in flags[0] and (os.cpu_count() or 1) < 2:
        message = engine.fails(125, "run", *flags, "--rootfs", engine.rootfs, "true")
        assert "accepted from 0.01 to 1" in message
        return
    expected = f"{quota} {period}" if layout.mode == "v2" else str(quota)
    assert seen(engine, "quota", *flags) == expected


def test_cpu_shares_are_shares_on_v1_and_a_weight_on_v2(
    engine: Engine, layout: cgroups.Layout
) -> None:
    expected = "59" if layout.mode == "v2" else "512"
    assert seen(engine, "shares", "--cpu-shares", "512") == expected


def test_cpuset_pins_it_or_is_refused_by_name(engine: Engine, layout: cgroups.Layout) -> None:
    last = max(os.sched_getaffinity(0))
    options = ("--rm", "--cpuset-cpus", str(last), "--rootfs", engine.rootfs)
    if not groups.has(layout, "cpuset"):
        message = engine.fails(125, "run", *options, "true")
        assert "the cpuset controller is not available" in message
        return
    script = ("sh", "-c", "grep Cpus_allowed_list /proc/self/status")
    assert engine.ok("run", *options, *script).split() == ["Cpus_allowed_list:", str(last)]
    assert seen(engine, "cpus", *options[1:3]) == str(last)


def test_cpu_that_the_host_lacks_is_refused_with_the_range(
    engine: Engine, layout: cgroups.Layout
) -> None:
    message = engine.fails(125, "run", "--cpuset-cpus", "4000", "--rootfs", engine.rootfs, "true")
    assert "cpuset" in message
    assert "accepted: within 0" in message or not groups.has(layout, "cpuset")


# --------------------------------------------------------------------------------- pids


def test_pids_limit_stops_a_fork_bomb(engine: Engine) -> None:
    engine.detach("--name", "bomb", "--pids-limit", "20", command=BOMB)
    group = group_of(engine, "bomb")
    wait_until(lambda: refusals(group) > 20, "refused forks")
    assert max(len(group.pids()) for _ in range(50)) <= 20
    engine.ok("rm", "--force", "bomb")
    assert group.pids() == []


def test_pids_limit_of_one_is_kept_from_the_first_instruction(engine: Engine) -> None:
    told = engine.run(
        *("run", "--rm", "--pids-limit", "1", "--rootfs", engine.rootfs),
        *("sh", "-c", "echo $$; sleep 0; echo never"),
    )
    assert told.stdout == "1\n"
    assert "can't fork" in told.stderr


def test_pids_limit_is_2048_unless_told(engine: Engine) -> None:
    assert seen(engine, "pids") == "2048"


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_pids_limit_may_be_lifted(engine: Engine, limit: str) -> None:
    assert seen(engine, "pids", "--pids-limit", limit) == "max"


# -------------------------------------------------------------------------------- place


def test_group_is_named_by_the_id(engine: Engine) -> None:
    container_id = engine.detach("--name", "c")
    assert group_of(engine, "c").path == f"/minicontainer/{container_id}"


def test_group_is_made_below_the_parent_asked_for(engine: Engine, parent: str) -> None:
    container_id = engine.detach("--name", "c", "--cgroup-parent", parent, "--memory", "64m")
    group = group_of(engine, "c")
    assert group.path == f"{parent}/{container_id}"
    assert groups.value(group, "memory") == str(64 * MIB)
    assert engine.inspect("c")["HostConfig"]["CgroupParent"] == parent
    engine.ok("rm", "-f", "c")
    assert not any(map(os.path.exists, group.directories().values()))


def test_process_is_inside_before_it_does_anything_else(engine: Engine) -> None:
    told = engine.run("--trace", "run", "--rm", "--rootfs", engine.rootfs, "true", check=True)
    acts = re.findall(r"^\[init \d+\] (\w+)\((.*)$", told.stderr, re.MULTILINE)
    joined = [
        place
        for place, (name, text) in enumerate(acts)
        if re.search(r"/(tasks|cgroup.procs)\"", text)
    ]
    built = next(
        place for place, (name, _) in enumerate(acts) if name not in ("close", "write_file")
    )
    assert joined and max(joined) < built
    assert [name for name, _ in acts][-1] == "execve"


def test_command_sees_its_group_as_the_root(engine: Engine) -> None:
    paths = {line.split(":", 2)[2] for line in engine.sh("cat /proc/self/cgroup").splitlines()}
    assert paths == {"/"}


def test_exec_joins_the_group(engine: Engine) -> None:
    engine.detach("--name", "c", "--cgroupns", "host")
    path = group_of(engine, "c").path
    theirs, its = (
        {line.split(":", 2)[1]: line.split(":", 2)[2] for line in text.splitlines()}
        for text in (
            engine.ok("exec", "c", "cat", "/proc/1/cgroup"),
            engine.ok("exec", "c", "cat", "/proc/self/cgroup"),
        )
    )
    assert theirs == its
    assert path in its.values()


# ----------------------------------------------------------------------------- the end


def test_group_goes_with_the_container_and_children_of_a_shared_pid_namespace_too(
    engine: Engine,
) -> None:
    word = f"1000.{os.getpid()}"
    script = f"sleep {word} & sleep {word} & read line; exit 3"
    process = engine.popen(
        *("run", "--name", "c", "-i", "--pid", "host", "--rootfs", engine.rootfs),
        *("sh", "-c", script),
    )
    engine.wait_for("c", "running")
    group = group_of(engine, "c")
    wait_until(lambda: len(group.pids()) == 3, "two children")
    assert process.communicate(b"\n", timeout=20)[1] == b""
    assert process.returncode == 3
    assert not any(word in command for command in engine.processes().values())
    assert not any(map(os.path.exists, group.directories().values()))


def test_stopping_kills_what_is_left_in_a_shared_pid_namespace(engine: Engine) -> None:
    script = "sleep 1000 & trap 'exit 4' TERM; while :; do sleep 0.1; done"
    engine.detach("--name", "c", "--pid", "host", command=("sh", "-c", script))
    group = group_of(engine, "c")
    wait_until(lambda: len(group.pids()) >= 2, "a child")
    engine.ok("stop", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 4
    assert group.pids() == []


def test_groups_that_the_container_made_itself_go_too(engine: Engine) -> None:
    script = (
        "for top in /sys/fs/cgroup/pids /sys/fs/cgroup/memory /sys/fs/cgroup; do"
        " [ -e $top/cgroup.procs ] || continue; mkdir -p $top/inner/most;"
        " sleep 1000 & echo $! > $top/inner/most/cgroup.procs; done; echo made; read line"
    )
    process = engine.popen(
        *("run", "--name", "c", "-i", "--privileged", "--pid", "host"),
        *("--rootfs", engine.rootfs, "sh", "-c", script),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"made\n"
    group = group_of(engine, "c")
    inner = [f"{top}/inner/most" for top in group.directories().values()]
    assert any(map(os.path.exists, inner))
    process.communicate(b"\n", timeout=20)
    assert process.returncode == 0
    assert not any(map(os.path.exists, group.directories().values()))


# ------------------------------------------------------------- what cannot be enforced


def test_limit_without_its_controller_is_an_error_that_names_it(
    make_engine: Callable[..., Engine], layout: cgroups.Layout
) -> None:
    """On v1 the hierarchy is taken off the mount table, on v2 all of them, if none is lacking."""
    lacking = {"--cpuset-cpus": "cpuset", "--cpus": "cpu", "--pids-limit": "pids"}
    flag = next((flag for flag, name in lacking.items() if not groups.has(layout, name)), None)
    if flag is not None:
        engine, controller = make_engine(), lacking[flag]
    else:
        flag, controller = "--pids-limit", "pids" if layout.mode != "v2" else "cgroups"
        point = layout.controllers.get("pids") or layout.unified
        hide = ["unshare", "--mount", "sh", "-c", f'umount -l {point} && exec "$@"', "sh"]
        engine = make_engine(command=[*hide, *program()])
    message = engine.fails(125, "run", flag, "1", "--rootfs", engine.rootfs, "true")
    assert controller in message
    assert engine.ok("run", "--rm", "--rootfs", engine.rootfs, "echo", "fine") == "fine\n"


def test_failed_limit_leaves_no_running_container_and_no_group(engine: Engine) -> None:
    options = ("--name", "c", "--cpuset-cpus", "4000", "--rootfs", engine.rootfs)
    engine.fails(125, "run", *options, "true")
    assert engine.status("c") in ("created", "exited")
    assert not [line for line in engine.leftovers(0) if line.startswith(("cgroups", "processes"))]


# ------------------------------------------------------------------------------- update


def test_update_changes_every_limit_of_a_running_container(
    engine: Engine, layout: cgroups.Layout
) -> None:
    engine.detach("--name", "c", "--memory", "64m")
    cpuset = ("--cpuset-cpus", "0") if groups.has(layout, "cpuset") else ()
    told = engine.ok(
        *("update", "--memory", "96m", "--memory-swap", "128m", "--memory-reservation", "48m"),
        *("--cpus", "0.5", "--cpu-shares", "512", "--pids-limit", "77", *cpuset, "c"),
    )
    assert told == "c\n"
    group = group_of(engine, "c")
    v2 = layout.mode == "v2"
    assert groups.value(group, "memory") == str(96 * MIB)
    if groups.has_swap_accounting(group):
        assert groups.value(group, "swap") == str(32 * MIB if v2 else 128 * MIB)
    assert groups.value(group, "quota") == ("50000 100000" if v2 else "50000")
    assert groups.value(group, "shares") == ("59" if v2 else "512")
    assert groups.value(group, "pids") == "77"
    if cpuset:
        assert groups.value(group, "cpus") == "0"
    limits = engine.inspect("c")["HostConfig"]
    assert limits["Memory"] == 96 * MIB
    assert limits["MemorySwap"] == 128 * MIB
    assert limits["NanoCpus"] == 500_000_000
    assert limits["PidsLimit"] == 77


def test_update_leaves_alone_what_it_does_not_name(engine: Engine) -> None:
    engine.detach("--name", "c", "--memory", "64m", "--pids-limit", "99")
    engine.ok("update", "--memory", "32m", "c")
    group = group_of(engine, "c")
    assert groups.value(group, "memory") == str(32 * MIB)
    assert groups.value(group, "pids") == "99"
    engine.ok("update", "--memory", "256m", "--memory-swap", "-1", "c")
    assert groups.value(group, "memory") == str(256 * MIB)


def test_update_of_a_stopped_container_counts_from_the_next_start(engine: Engine) -> None:
    script = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max"
    options = ("--name", "c", "--pids-limit", "99", "--rootfs", engine.rootfs)
    assert engine.ok("run", *options, "sh", "-c", script) == "99\n"
    engine.ok("update", "--pids-limit", "98", "c")
    assert engine.ok("start", "-a", "c") == "98\n"


def test_update_below_what_is_in_use_is_refused_and_changes_nothing(engine: Engine) -> None:
    script = "dd if=/dev/zero of=/dev/shm/kept bs=1M count=40 2>/dev/null; echo there; read line"
    options = ("run", "-i", "--name", "c", "-m", "64m", "--memory-swap", "64m")
    process = engine.popen(*options, "--rootfs", engine.rootfs, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    engine.fails(1, "update", "--memory", "16m", "--memory-swap", "16m", "c")
    assert engine.inspect("c")["HostConfig"]["Memory"] == 64 * MIB
    assert groups.value(group_of(engine, "c"), "memory") == str(64 * MIB)
    process.communicate(b"\n", timeout=20)
    assert process.returncode == 0


def test_update_needs_a_flag_and_a_container(engine: Engine) -> None:
    engine.fails(125, "update", "c")
    engine.fails(1, "update", "--memory", "64m", "nobody")
    engine.fails(1, "update", "--memory", "64m")
