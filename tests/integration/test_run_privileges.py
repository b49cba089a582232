"""--cap-add, --cap-drop, --privileged, --security-opt, --sysctl and --device."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from minicontainer import kernel
from tests.support import rootfs as rootfs_builder
from tests.support.inside import DEFAULT_CAPABILITIES, capabilities, mounts_in, status
from tests.support.runner import Engine

pytestmark = pytest.mark.root

NET_RAW = 1 << kernel.CAP_NET_RAW
CHOWN = 1 << kernel.CAP_CHOWN
SYS_ADMIN = 1 << kernel.CAP_SYS_ADMIN


def own_bounding() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return capabilities(status(file.read()))["CapBnd"]


def sets(engine: Engine, *flags: str) -> dict[str, int]:
    return capabilities(status(engine.sh("cat /proc/self/status", *flags)))


# Capabilities


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], DEFAULT_CAPABILITIES),
        (["--cap-add", "NET_RAW"], DEFAULT_CAPABILITIES | NET_RAW),
        (["--cap-add", "cap_net_raw"], DEFAULT_CAPABILITIES | NET_RAW),
        (["--cap-add", "net_raw,SYS_ADMIN"], DEFAULT_CAPABILITIES | NET_RAW | SYS_ADMIN),
        (["--cap-drop", "CHOWN"], DEFAULT_CAPABILITIES & ~CHOWN),
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "all", "--cap-add", "CHOWN"], CHOWN),
        (["--cap-add", "CHOWN", "--cap-drop", "ALL"], CHOWN),  # ALL applies first
        (["--cap-drop", "NET_RAW", "--cap-add", "NET_RAW"], DEFAULT_CAPABILITIES | NET_RAW),
    ],
)
def test_capabilities_of_root(engine: Engine, flags: list[str], expected: int) -> None:
    assert sets(engine, *flags) == {
        "CapInh": 0,
        "CapPrm": expected,
        "CapEff": expected,
        "CapBnd": expected,
        "CapAmb": 0,
    }


def test_all_capabilities_are_those_we_have_ourselves(engine: Engine) -> None:
    assert sets(engine, "--cap-add", "ALL")["CapEff"] == own_bounding()
    found = sets(engine, "--cap-add", "ALL", "--cap-drop", "SYS_ADMIN")
    assert found["CapEff"] == found["CapBnd"] == own_bounding() & ~SYS_ADMIN


def test_capabilities_of_another_user_are_bounding_only(engine: Engine) -> None:
    found = sets(engine, "-u", "app", "--cap-add", "NET_RAW")
    expected = dict.fromkeys(found, 0)
    assert found == {**expected, "CapBnd": DEFAULT_CAPABILITIES | NET_RAW}


def test_dropped_capability_is_really_gone(engine: Engine) -> None:
    script = "chown 1 /tmp/x || echo refused"
    assert engine.sh(f"touch /tmp/x; {script}") == ""
    assert engine.sh(f"touch /tmp/x; {script}", "--cap-drop", "CHOWN") == "refused\n"


def test_added_capability_is_of_use(engine: Engine) -> None:
    script = "mount -t tmpfs x /tmp 2>/dev/null && echo mounted || echo refused"
    assert engine.sh(script) == "refused\n"
    assert engine.sh(script, "--cap-add", "SYS_ADMIN") == "mounted\n"


def test_capability_we_lack_is_an_error_that_names_it(engine: Engine) -> None:
    missing = next(
        (name for name in dir(kernel) if name.startswith("CAP_") and _is_missing(name)), None
    )
    if missing is None:  # a host that gives root everything: take one away
        missing = "CAP_NET_RAW"
        engine.command = ["setpriv", "--bounding-set", "-net_raw", *engine.command]
    said = engine.fails(125, "run", "--cap-add", missing, "--rootfs", engine.rootfs, "true")
    assert missing.replace("CAP_", "") in said
    assert engine.containers() == []


def _is_missing(name: str) -> bool:
    number = getattr(kernel, name)
    return isinstance(number, int) and number < 41 and not own_bounding() >> number & 1


def test_unknown_capability_is_refused(engine: Engine) -> None:
    for flag in ("--cap-add", "--cap-drop"):
        said = engine.fails(125, "run", flag, "FLY", "--rootfs", engine.rootfs, "true")
        assert "FLY" in said
    assert engine.containers() == []


# --privileged


def test_privileged_has_all_capabilities_no_masks_and_a_writable_sys(engine: Engine) -> None:
    assert sets(engine, "--privileged")["CapEff"] == own_bounding()
    table = mounts_in(engine, "--privileged")
    below = {mount.target for mount in table if mount.target.startswith(("/proc/", "/sys/"))}
    assert {target for target in below if not target.startswith("/sys/fs/cgroup")} == set()
    assert all("rw" in mount.options for mount in table)


def test_privileged_has_the_devices_of_the_host(engine: Engine) -> None:
    numbers = "stat -c '%t:%T' /dev/loop-control /dev/null"
    assert engine.sh(numbers, "--privileged").split() == ["a:ed", "1:3"]


# --security-opt


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "0"),
        (["--security-opt", "no-new-privileges"], "1"),
        (["--security-opt=no-new-privileges:true"], "1"),
        (["--security-opt", "no-new-privileges=false"], "0"),
    ],
)
def test_no_new_privileges(engine: Engine, flags: list[str], expected: str) -> None:
    assert status(engine.sh("cat /proc/self/status", *flags))["NoNewPrivs"] == expected


def test_no_new_privileges_takes_the_power_of_setuid_programs(engine: Engine) -> None:
    fs = rootfs_builder.build(f"{engine.base}/fs")
    shutil.copyfile(f"{fs}/bin/busybox", f"{fs}/bin/ping-setuid")
    os.unlink(f"{fs}/bin/ping")
    os.rename(f"{fs}/bin/ping-setuid", f"{fs}/bin/ping")  # an applet that keeps its power
    os.chmod(f"{fs}/bin/ping", 0o4755)
    script = "/bin/ping 127.0.0.1 > /tmp/o & sleep 0.2; grep Uid /proc/$!/status"
    words = ["-u", "app", "--cap-add", "NET_RAW", "--rootfs", fs, "sh", "-c", script]
    effective = engine.ok("run", "--rm", *words).split()[2]
    assert effective == "0"
    done = engine.run("run", "--rm", "--security-opt", "no-new-privileges", *words)
    assert "permission denied (are you root?)" in done.stderr


def test_no_new_privileges_holds_for_exec(engine: Engine) -> None:
    engine.detach("--name", "n", "--security-opt", "no-new-privileges")
    shown = engine.ok("exec", "n", "cat", "/proc/self/status")
    assert status(shown)["NoNewPrivs"] == "1"


def test_unconfined_system_paths_have_no_masks(engine: Engine) -> None:
    table = mounts_in(engine, "--security-opt", "systempaths=unconfined")
    assert not [mount for mount in table if mount.target.startswith("/proc/")]


def test_security_option_that_is_not_built_is_refused(engine: Engine) -> None:
    for option in ("seccomp=/etc/passwd", "apparmor=mine", "nonsense"):
        said = engine.fails(125, "run", "--security-opt", option, "--rootfs", engine.rootfs, "true")
        assert option in said


# --sysctl


def test_sysctl_is_set_inside_and_not_outside(engine: Engine) -> None:
    flags = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4321"]
    flags += ["--sysctl=kernel.shm_rmid_forced=1", "--sysctl", "fs/mqueue/msg_max=11"]
    names = "net/ipv4/ip_forward kernel/msgmax kernel/shm_rmid_forced fs/mqueue/msg_max"
    with open("/proc/sys/kernel/msgmax", encoding="ascii") as file:
        before = file.read()
    assert engine.sh(f"cd /proc/sys; cat {names}", *flags).split() == ["1", "4321", "1", "11"]
    with open("/proc/sys/kernel/msgmax", encoding="ascii") as file:
        assert file.read() == before


PING = """
import os, socket
os.setresgid(4711, 4711, 4711)
os.setresuid(4711, 4711, 4711)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.settimeout(5)
s.sendto(b"\\x08\\0\\0\\0\\0\\0\\0\\1pong", ("127.0.0.1", 0))
print(s.recv(100)[8:].decode())
"""


def test_everybody_may_ping(engine: Engine) -> None:
    assert engine.sh("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "2147483647"]
    python = os.path.realpath(sys.executable)
    assert engine.ok("run", "--rm", "--rootfs", "/", python, "-c", PING) == "pong\n"


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--sysctl", "kernel.panic=1"], "kernel.panic"),
        (["--sysctl", "vm.swappiness=1"], "vm.swappiness"),
        (["--sysctl", "net.ipv4.ip_forward=1", "--network", "host"], "network namespace"),
        (["--sysctl", "kernel.msgmax=1", "--ipc", "host"], "ipc namespace"),
        (["--sysctl", "net..x=1"], "net..x"),
        (["--sysctl", "net/../kernel/panic=1"], "net"),
        (["--sysctl", "net.ipv4.ip_forward"], "KEY=VALUE"),
        (["--sysctl", "net.no_such_thing=1"], "no_such_thing"),
        (["--sysctl", "net.ipv4.ip_forward=nonsense"], "ip_forward"),
    ],
)
def test_sysctl_that_is_not_the_containers_is_refused(
    engine: Engine, flags: list[str], word: str
) -> None:
    assert word in engine.fails(125, "run", "--rm", *flags, "--rootfs", engine.rootfs, "true")
    assert engine.leftovers() == []


# --device


def test_device_of_the_host_is_shown(engine: Engine) -> None:
    shown = engine.sh("stat -c '%F %t:%T' /dev/loop-control", "--device", "/dev/loop-control")
    assert shown == "character special file a:ed\n"


def test_device_may_have_another_name_inside(engine: Engine) -> None:
    script = "stat -c '%t:%T' /dev/sub/mine; head -c 3 /dev/sub/mine | wc -c"
    assert engine.sh(script, "--device", "/dev/zero:/dev/sub/mine:r") == "1:5\n3\n"


def test_device_may_lie_outside_dev(engine: Engine) -> None:
    assert engine.sh("stat -c '%t:%T' /opt/null", "--device=/dev/null:/opt/null") == "1:3\n"


def test_directory_of_devices_is_shown_whole(engine: Engine) -> None:
    directory = f"{engine.base}/nodes"
    os.makedirs(f"{directory}/deep")
    os.mknod(f"{directory}/zero", 0o20604, os.makedev(1, 5))
    os.mknod(f"{directory}/deep/full", 0o20640, os.makedev(1, 7))
    script = "stat -c '%n %t:%T %a' /dev/n/zero /dev/n/deep/full"
    shown = engine.sh(script, "--device", f"{directory}:/dev/n")
    assert shown.splitlines() == ["/dev/n/zero 1:5 604", "/dev/n/deep/full 1:7 640"]


@pytest.mark.parametrize(
    ("device", "word"),
    [
        ("/dev/no-such-device", "no such file or directory"),
        ("/etc/passwd", "not a device"),
        ("/dev/null:relative", "not absolute"),
        ("/dev/null:/dev/x:q", "HOST[:CONTAINER][:PERMISSIONS]"),
        ("null", "begins with /"),
    ],
)
def test_device_that_is_none_is_refused(engine: Engine, device: str, word: str) -> None:
    said = engine.fails(125, "run", "--device", device, "--rootfs", engine.rootfs, "true")
    assert word in said
    assert engine.leftovers() == []
