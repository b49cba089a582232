"""--pid, --ipc, --uts, --cgroupns and --network; /etc/hosts, hostname and resolv.conf."""

from __future__ import annotations

import os

import pytest

from tests.support.inside import mount_at, mounts_in, namespaces_of
from tests.support.runner import Engine

pytestmark = pytest.mark.root

HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def namespaces_in(engine: Engine, *flags: str) -> dict[str, str]:
    """kind -> name of the namespaces of a new container."""
    script = "for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done"
    lines = engine.sh(script, *flags).split()
    return {line.partition(":")[0]: line for line in lines}


def shared(engine: Engine, *flags: str) -> set[str]:
    """The kinds of namespace that a new container has in common with the host."""
    ours, theirs = namespaces_of("self"), namespaces_in(engine, *flags)
    return {kind for kind in ours if ours[kind] == theirs[kind]}


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_every_namespace_is_new(engine: Engine) -> None:
    assert shared(engine) == set()


# --pid


def test_host_pid_namespace_shows_the_hosts_processes(engine: Engine) -> None:
    assert shared(engine, "--pid", "host") == {"pid"}
    assert engine.sh(f"test -d /proc/{os.getpid()} && echo seen", "--pid=host") == "seen\n"


def test_host_pid_namespace_is_no_way_into_the_hosts_root(engine: Engine) -> None:
    script = f"ls /proc/{os.getpid()}/root/ /proc/{os.getpid()}/cwd/ 2>/dev/null || echo refused"
    assert engine.sh(script, "--pid", "host") == "refused\n"


def test_pid_namespace_of_another_container_is_shared(engine: Engine) -> None:
    engine.detach("--name", "first", "--hostname", "first", command=["sleep", "777"])
    flags = ["--pid", "container:first"]
    assert "sleep 777" in engine.sh("ps", *flags)
    theirs = namespaces_of(engine.pid("first"))
    assert namespaces_in(engine, *flags)["pid"] == theirs["pid"]
    assert namespaces_in(engine, *flags)["mnt"] != theirs["mnt"]
    assert engine.sh("kill 1; sleep 0.1", *flags, "--cap-drop", "ALL") == ""


def test_container_in_anothers_pid_namespace_ends_by_itself(engine: Engine) -> None:
    engine.detach("--name", "first")
    words = ["run", "--pid", "container:first", "--rootfs", engine.rootfs]
    assert engine.run(*words, "sh", "-c", "sleep 600 & exit 4").returncode == 4
    assert engine.status("first") == "running"
    assert "sleep 600" not in engine.ok("top", "first")


@pytest.mark.parametrize("flag", ["--pid", "--ipc"])
def test_namespace_of_a_container_that_is_not_there(engine: Engine, flag: str) -> None:
    words = ["--rootfs", engine.rootfs, "true"]
    said = engine.fails(125, "run", flag, "container:nobody", *words)
    assert "No such container: nobody" in said
    engine.ok("create", "--name", "idle", *words)
    assert "not running" in engine.fails(125, "run", "--rm", flag, "container:idle", *words)


# --ipc


def test_host_ipc_namespace_shares_memory_and_queues(engine: Engine) -> None:
    assert shared(engine, "--ipc", "host") == {"ipc"}
    name = f"mc-test-{os.getpid()}"
    try:
        engine.sh(f"echo inside > /dev/shm/{name}", "--ipc", "host")
        assert read(f"/dev/shm/{name}") == "inside\n"
    finally:
        os.unlink(f"/dev/shm/{name}")


def test_ipc_namespace_of_another_container_is_shared(engine: Engine) -> None:
    engine.detach("--name", "first", "--ipc", "shareable")
    engine.ok("exec", "first", "sh", "-c", "echo first > /dev/shm/x")
    flags = ["--ipc", "container:first"]
    assert engine.sh("cat /dev/shm/x; echo second > /dev/shm/y", *flags) == "first\n"
    assert engine.ok("exec", "first", "cat", "/dev/shm/y") == "second\n"
    assert namespaces_in(engine, *flags)["ipc"] == namespaces_of(engine.pid("first"))["ipc"]


def test_no_ipc_means_no_shared_memory(engine: Engine) -> None:
    table = mounts_in(engine, "--ipc", "none")
    assert "/dev/shm" not in {mount.target for mount in table}


def test_message_queues_are_the_containers_own(engine: Engine) -> None:
    assert mount_at(mounts_in(engine), "/dev/mqueue").fstype == "mqueue"
    engine.detach("--name", "q", command=["sh", "-c", "echo > /dev/mqueue/mine; sleep 100"])
    assert engine.sh("ls /dev/mqueue") == ""


# --uts, --cgroupns


def test_host_uts_namespace_has_the_hosts_name(engine: Engine) -> None:
    assert shared(engine, "--uts", "host") == {"uts"}
    assert engine.sh("hostname; echo $HOSTNAME", "--uts", "host").split() == (
        [os.uname().nodename] * 2
    )


def test_hostname_in_the_hosts_uts_namespace_is_refused(engine: Engine) -> None:
    before = os.uname().nodename
    words = ["run", "--uts", "host", "--hostname", "x", "--rootfs", engine.rootfs, "true"]
    assert "--hostname" in engine.fails(125, *words)
    assert os.uname().nodename == before


@pytest.mark.cgroup
def test_host_cgroup_namespace_shows_the_whole_path(engine: Engine) -> None:
    assert shared(engine, "--cgroupns", "host") == {"cgroup"}
    script = "cat /proc/self/cgroup"
    assert ":/minicontainer/" in engine.sh(script, "--cgroupns", "host")
    assert "minicontainer" not in engine.sh(script)


# --network


def test_network_none_has_loopback_only_and_it_is_up(engine: Engine) -> None:
    for flags in ([], ["--network", "none"], ["--net=none"]):
        script = "ls /sys/class/net; cat /sys/class/net/lo/flags; ping -c 1 127.0.0.1 >/tmp/o; "
        script += "echo $?; cat /proc/net/route | wc -l"
        shown = engine.sh(script, "--cap-add", "NET_RAW", *flags)
        assert shown.split() == ["lo", "0x9", "0", "1"]


def test_network_host_has_the_hosts_interfaces(engine: Engine) -> None:
    assert shared(engine, "--network", "host") == {"net"}
    shown = engine.sh("ls /sys/class/net", "--network=host").split()
    assert sorted(shown) == sorted(os.listdir("/sys/class/net"))


def test_network_host_has_the_hosts_name_and_files(engine: Engine) -> None:
    script = "hostname; cat /etc/hostname; cat /etc/hosts; echo ---; cat /etc/resolv.conf"
    shown = engine.sh(script, "--network", "host")
    name = os.uname().nodename
    expected = f"{name}\n{name}\n{read('/etc/hosts')}---\n{read('/etc/resolv.conf')}"
    assert shown == expected


def test_hostname_can_be_given_with_the_hosts_network(engine: Engine) -> None:
    before = os.uname().nodename
    assert engine.sh("hostname", "--network", "host", "--hostname", "mine") == "mine\n"
    assert os.uname().nodename == before


def test_network_host_does_not_change_the_hosts_files(engine: Engine) -> None:
    before = read("/etc/hosts")
    script = "echo 1.2.3.4 evil >> /etc/hosts; echo x > /etc/resolv.conf"
    engine.sh(script, "--network", "host")
    assert read("/etc/hosts") == before


# /etc/hosts, /etc/hostname, /etc/resolv.conf


def test_hosts_file(engine: Engine) -> None:
    flags = ["--add-host", "db:10.1.2.3", "--add-host", "six:fd00::1", "--add-host", "e=[::2]"]
    added = "10.1.2.3\tdb\nfd00::1\tsix\n::2\te\n"
    assert engine.sh("cat /etc/hosts", *flags) == HOSTS + added + "127.0.1.1\tminicontainer\n"


def test_files_in_etc_are_writable_and_made_anew_at_each_start(engine: Engine) -> None:
    script = "echo mine >> /etc/hosts; echo mine > /etc/hostname; cat /etc/hosts /etc/hostname"
    words = ["run", "--name", "e", "--rootfs", engine.rootfs, "sh", "-c", script]
    expected = HOSTS + "127.0.1.1\tminicontainer\nmine\nmine\n"
    assert engine.ok(*words) == expected
    assert engine.ok("start", "-a", "e") == expected
    assert read(f"{engine.rootfs}/etc/hostname") == "from-the-rootfs\n"


def test_files_in_etc_are_readable_by_all(engine: Engine) -> None:
    script = "umask; stat -c '%a %u' /etc/hosts /etc/hostname /etc/resolv.conf"
    words = ["run", "--rm", "-u", "app", "--rootfs", engine.rootfs, "sh", "-c", script]
    assert engine.ok(*words, umask=0o077).split("\n")[1:-1] == ["644 0"] * 3


def test_resolver_flags_replace_their_kind(engine: Engine) -> None:
    flags = ["--dns", "10.0.0.53", "--dns", "fd00::53", "--dns-search", "a.example"]
    flags += ["--dns-search=b.example", "--dns-option", "ndots:3", "--dns-option", "rotate"]
    assert engine.sh("cat /etc/resolv.conf", *flags) == (
        "nameserver 10.0.0.53\nnameserver fd00::53\nsearch a.example b.example\n"
        "options ndots:3 rotate\n"
    )
