"""What a container's file tree is made of: the mount table, /dev, masks, read-only paths."""

from __future__ import annotations

import os
import stat

import pytest

from minicontainer.engine.bundle_mounts import MASKED, READ_ONLY
from minicontainer.primitives import cgroups
from tests.support.inside import mount_at, mount_table, mounts_in, mounts_of
from tests.support.runner import Engine

pytestmark = pytest.mark.root

QUIET = frozenset(("nosuid", "noexec", "nodev"))
RELATIVE = frozenset(("relatime",))

# target -> type, options, some of the file system's own options
TABLE = {
    "/": ("overlay", {"rw", "relatime"}, set()),
    "/proc": ("proc", {"rw", *QUIET, *RELATIVE}, set()),
    # strictatime shows as no word at all
    "/dev": ("tmpfs", {"rw", "nosuid", "noexec"}, {"size=65536k", "mode=755"}),
    "/dev/pts": (
        "devpts",
        {"rw", "nosuid", "noexec", *RELATIVE},
        {"gid=5", "mode=620", "ptmxmode=666"},
    ),
    "/dev/shm": ("tmpfs", {"rw", *QUIET, *RELATIVE}, {"size=65536k"}),
    "/dev/mqueue": ("mqueue", {"rw", *QUIET, *RELATIVE}, set()),
    "/sys": ("sysfs", {"ro", *QUIET, *RELATIVE}, set()),
}
ETC = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")

DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


# The mount table


@pytest.mark.parametrize("target", TABLE)
def test_mount_has_exactly_its_flags(engine: Engine, target: str) -> None:
    fstype, options, data = TABLE[target]
    mount = mount_at(mounts_in(engine), target)
    assert (mount.fstype, set(mount.options)) == (fstype, options)
    assert data <= set(mount.data)


def test_there_are_no_other_mounts(engine: Engine) -> None:
    targets = [mount.target for mount in mounts_in(engine)]
    assert len(targets) == len(set(targets)), "nothing is mounted twice"
    others = {
        target
        for target in targets
        if target not in TABLE and not target.startswith(("/proc/", "/sys/"))
    }
    assert others == set(ETC)
    expected = {*MASKED, *READ_ONLY}
    below = {target for target in targets if target.startswith(("/proc/", "/sys/"))}
    rest = {target for target in below - expected if "thermal_throttle" not in target}
    assert all(target.startswith("/sys/fs/cgroup") for target in rest)


def test_every_mount_is_private(engine: Engine) -> None:
    assert {mount.target: mount.propagation for mount in mounts_in(engine)} == {
        mount.target: [] for mount in mounts_in(engine)
    }


@pytest.mark.cgroup
def test_cgroups_are_mounted_read_only(engine: Engine) -> None:
    table = mounts_in(engine)
    expected = {"ro", *QUIET, *RELATIVE}
    below = [mount for mount in table if mount.target.startswith("/sys/fs/cgroup")]
    if cgroups.detect().controllers:  # v1: one of each controller, of our own group
        assert mount_at(below, "/sys/fs/cgroup").fstype == "tmpfs"
        assert {mount.fstype for mount in below[1:]} <= {"cgroup", "cgroup2"}
        assert len(below) > 1
    else:
        assert [mount.fstype for mount in below] == ["cgroup2"]
    for mount in below:
        assert set(mount.options) == expected, mount
        assert mount.root == "/", "in a cgroup namespace the own group is the root"


@pytest.mark.cgroup
def test_cgroups_cannot_be_changed_from_inside(engine: Engine) -> None:
    script = "cd /sys/fs/cgroup; mkdir x; for d in . $(find . -maxdepth 1 -type d); do mkdir $d/x; "
    script += "echo 0 > $d/cgroup.procs; echo 1 > $d/memory.limit_in_bytes; done; true"
    words = ["run", "--rm", "--cap-add", "ALL", "--rootfs", engine.rootfs, "sh", "-c", script]
    done = engine.run(*words, check=True)
    complaints = [line for line in done.stderr.splitlines() if "nonexistent" not in line]
    assert complaints and all("Read-only file system" in line for line in complaints), complaints


@pytest.mark.cgroup
def test_own_cgroup_shows_only_the_containers_processes(engine: Engine) -> None:
    shown = engine.sh("cat /sys/fs/cgroup/pids/tasks || cat /sys/fs/cgroup/cgroup.procs; true")
    assert 1 <= len(shown.split()) <= 3 and "1" in shown.split()


# /dev


def dev_of(engine: Engine, *flags: str) -> str:
    """The directory on the host that is /dev of a running container."""
    engine.detach("--name", "n", *flags)
    return f"/proc/{engine.pid('n')}/root/dev"


def test_device_nodes_have_their_numbers_and_modes(engine: Engine) -> None:
    dev = dev_of(engine)
    for name, minor in DEVICES.items():
        found = os.lstat(f"{dev}/{name}")
        assert stat.S_ISCHR(found.st_mode), name
        assert found.st_rdev == os.makedev(1, minor), name
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o666, 0, 0), name
    assert os.lstat(f"{dev}/tty").st_rdev == os.makedev(5, 0)
    assert stat.S_IMODE(os.lstat(f"{dev}/tty").st_mode) == 0o666


def test_dev_holds_this_and_no_more(engine: Engine) -> None:
    dev = dev_of(engine)
    assert set(os.listdir(dev)) == {*DEVICES, *LINKS, "tty", "pts", "shm", "mqueue"}
    assert {name: os.readlink(f"{dev}/{name}") for name in LINKS} == LINKS
    assert os.listdir(f"{dev}/pts") == ["ptmx"]
    assert stat.S_IMODE(os.stat(f"{dev}/shm").st_mode) == 0o1777


def test_console_is_there_with_a_terminal(engine: Engine) -> None:
    dev = dev_of(engine, "-t")
    found = os.stat(f"{dev}/console")
    assert os.major(found.st_rdev) == 136
    assert found.st_rdev == os.stat(f"{dev}/pts/0").st_rdev


def test_devices_do_what_they_do(engine: Engine) -> None:
    script = "echo gone > /dev/null; head -c 4 /dev/zero | wc -c; head -c 9 /dev/urandom | wc -c; "
    script += "(echo x > /dev/full) 2>&1 | grep -o 'No space left on device'; echo e > /dev/stderr"
    words = ["run", "--rm", "-u", "app", "--rootfs", engine.rootfs, "sh", "-c", script]
    done = engine.run(*words, check=True)
    assert done.stdout.split("\n")[:3] == ["4", "9", "No space left on device"]
    assert done.stderr == "e\n"


def test_pseudo_terminals_are_the_containers_own(engine: Engine) -> None:
    before = os.listdir("/dev/pts")
    assert engine.sh("exec 3<>/dev/ptmx; ls /dev/pts").split() == ["0", "ptmx"]
    assert os.listdir("/dev/pts") == before


# Masks and read-only paths


def existing(paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def test_masked_paths_are_empty_and_cannot_be_written(engine: Engine) -> None:
    script = "for p in $0 $@; do if [ -d $p ]; then ls -A $p; touch $p/x; "
    script += "else cat $p; : >> $p; fi; done; true"
    paths = existing(MASKED)
    assert len(paths) > 3
    words = ["run", "--rm", "--rootfs", engine.rootfs, "sh", "-c", script, *paths]
    done = engine.run(*words, check=True)
    assert done.stdout == ""
    assert done.stderr.count("Read-only file system") >= sum(map(os.path.isdir, paths))


def test_masks_are_read_only_mounts(engine: Engine) -> None:
    table = mounts_in(engine)
    for path in existing(MASKED):
        mount = mount_at(table, path)
        assert mount.options >= {"ro", "nosuid", "noexec"}, path
        kind = "tmpfs" if os.path.isdir(path) else "devtmpfs"
        assert mount.fstype in (kind, "tmpfs"), path
    masks = {mount.root for mount in table if mount.target in MASKED and mount.fstype != "tmpfs"}
    assert masks <= {"/null"}


def test_masks_cannot_be_taken_off(engine: Engine) -> None:
    masked = existing(MASKED)[0]
    words = ["run", "--rm", "--rootfs", engine.rootfs, "umount", masked]
    assert engine.run(*words).returncode != 0


def test_read_only_paths_cannot_be_written(engine: Engine) -> None:
    table = mounts_in(engine)
    for path in existing(READ_ONLY):
        assert set(mount_at(table, path).options) == {"ro", *QUIET, *RELATIVE}, path
    script = "echo x > /proc/sys/kernel/domainname; echo 1 > /proc/sys/net/ipv4/ip_forward; "
    script += "chmod 777 /proc/sys/kernel; true"
    done = engine.run("run", "--rm", "--rootfs", engine.rootfs, "sh", "-c", script, check=True)
    assert done.stderr.count("Read-only file system") == 3


def test_proc_shows_the_containers_processes_and_is_not_the_hosts(engine: Engine) -> None:
    mount = mount_at(mounts_in(engine), "/proc")
    assert mount.root == "/"
    assert engine.sh("cat /proc/1/comm") == "cat\n"


def test_exec_sees_the_same_mounts(engine: Engine) -> None:
    engine.detach("--name", "n")
    inside = mount_table(engine.ok("exec", "n", "cat", "/proc/self/mountinfo"))
    first = mounts_of(engine.pid("n"))
    # Where a cgroup's root lies depends on who looks.
    assert [mount._replace(root="") for mount in inside] == [
        mount._replace(root="") for mount in first
    ]
