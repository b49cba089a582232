"""Containers of an ordinary user: one id, or a range of /etc/subuid, in a user namespace."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.inside import mount_table, namespaces_of
from tests.support.runner import wait_until
from tests.support.users import NAME, UID, UserEngine, scratch_is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root

FIRST_SUBORDINATE = 700000


@pytest.fixture(params=["one id", "subordinate ids"])
def any_user(request: pytest.FixtureRequest, make_engine: Callable[..., UserEngine]) -> UserEngine:
    """An engine of a user without, then of one with, a range of subordinate ids."""
    return user(make_engine, subids=request.param == "subordinate ids")


@pytest.fixture
def ranged(make_engine: Callable[..., UserEngine]) -> UserEngine:
    return user(make_engine, subids=True)


def user(make_engine: Callable[..., UserEngine], **options: bool) -> UserEngine:
    assert scratch_is_open(), "set MC_TEST_DIR to a directory that other users can reach"
    return make_engine(UserEngine, **options)


def own_rootfs(engine: UserEngine) -> str:
    """A root filesystem that belongs to the user, as unpacked by him."""
    path = rootfs_builder.build(f"{engine.base}/fs")
    subprocess.run(["chown", "-hR", f"{UID}:{UID}", path], check=True)
    return path


# Both users


def test_hello_from_the_hosts_tree(any_user: UserEngine) -> None:
    script = "echo hello from $(hostname); id -u; cd; pwd; touch x /tmp/mc-canary && "
    script += "ls x /tmp/mc-canary"
    said = any_user.ok("run", "--rm", "--rootfs", "/", "sh", "-c", script)
    assert said == "hello from minicontainer\n0\n/root\n/tmp/mc-canary\nx\n"
    assert not os.path.exists("/tmp/mc-canary")


def test_hello_from_a_directory(any_user: UserEngine) -> None:
    assert any_user.sh("echo hello from $(hostname); id -u") == "hello from minicontainer\n0\n"


def test_own_directory_is_written_through_the_upper_layer_only(any_user: UserEngine) -> None:
    fs = own_rootfs(any_user)
    script = "echo new > /new; rm /etc/group; echo more >> /etc/passwd; mkdir -p /home/app/a; ls /"
    words = ["run", "--rm", "-w", "/made/here", "--rootfs", fs, "sh", "-c", script]
    assert "new" in any_user.ok(*words).split()
    assert not os.path.exists(f"{fs}/new") and not os.path.exists(f"{fs}/made")
    assert os.path.exists(f"{fs}/etc/group")


def test_every_namespace_is_new_also_that_of_users(any_user: UserEngine) -> None:
    any_user.detach("--name", "n")
    pid = any_user.pid("n")
    theirs, ours = namespaces_of(pid), namespaces_of("self")
    assert [kind for kind in ours if ours[kind] == theirs[kind]] == []
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    assert os.stat(f"/proc/{pid}").st_uid == UID
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
        assert file.readline().split() == ["0", str(UID), "1"]


@pytest.mark.lifecycle
def test_whole_life(any_user: UserEngine) -> None:
    script = "echo out; echo err >&2; trap 'exit 5' TERM; while :; do sleep 0.05; done"
    container_id = any_user.detach("--name", "n", command=["sh", "-c", script])
    wait_until(lambda: any_user.ok("logs", "n"), "its output")
    logs = any_user.run("logs", "n", check=True)
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert any_user.ok("ps", "-q") == container_id[:12] + "\n"
    assert any_user.ok("exec", "n", "sh", "-c", "id -u; hostname; cat /proc/1/comm") == (
        "0\nminicontainer\nsh\n"
    )
    assert any_user.run("exec", "n", "sh", "-c", "exit 9").returncode == 9
    any_user.ok("stop", "n")
    assert any_user.inspect("n")["State"]["ExitCode"] == 5
    any_user.ok("start", "n")
    assert any_user.status("n") == "running"
    any_user.ok("kill", "n")
    any_user.wait_for("n", "exited")
    any_user.ok("rm", "n")
    assert any_user.leftovers() == []


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_files_are_copied_both_ways(any_user: UserEngine, state: str) -> None:
    fs = own_rootfs(any_user)
    words = ["--name", "n", "--rootfs", fs]
    if state == "running":
        any_user.ok("run", "-d", *words, "sleep", "1000")
    else:
        any_user.ok("run", *words, "true")
    home = any_user.user.home
    source = f"{home}/in"
    with open(source, "w", encoding="ascii") as file:
        file.write("copied\n")
    os.chown(source, UID, UID)
    any_user.ok("cp", source, "n:/root/in")
    any_user.ok("cp", "n:/root/in", f"{home}/out")
    any_user.ok("cp", "n:/etc/passwd", f"{home}/passwd")
    with open(f"{home}/out", encoding="ascii") as file:
        assert file.read() == "copied\n"
    assert os.stat(f"{home}/passwd").st_uid == UID
    assert not os.path.exists(f"{fs}/root/in")
    assert "A /root/in\n" in any_user.ok("diff", "n")


def test_volume_of_the_users_is_written_as_the_user(any_user: UserEngine) -> None:
    source = f"{any_user.user.home}/data"
    any_user.sh("touch /data/x", "-v", f"{source}:/data")
    assert os.stat(f"{source}/x").st_uid == UID
    assert any_user.sh("touch /data/y || echo refused", "-v", f"{source}:/data:ro") == "refused\n"


def test_terminal(any_user: UserEngine) -> None:
    script = "tty; stat -c %t /dev/console; id -u"
    words = ["run", "--rm", "-t", "--rootfs", any_user.rootfs, "sh", "-c", script]
    assert any_user.ok(*words).split() == ["/dev/pts/0", "88", "0"]


def test_devices_are_the_hosts(any_user: UserEngine) -> None:
    script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; stat -c '%t:%T' /dev/null /dev/full"
    assert any_user.sh(script).split() == ["3", "1:3", "1:7"]


def test_masks_and_read_only_paths_hold(any_user: UserEngine) -> None:
    script = "cat /proc/keys /proc/timer_list; ls /sys/firmware; "
    script += "for f in /proc/sys/kernel/domainname /proc/irq/x; do echo x > $f; done; true"
    done = any_user.run("run", "--rm", "--rootfs", any_user.rootfs, "sh", "-c", script, check=True)
    assert done.stdout == ""
    assert "Read-only file system" in done.stderr


def test_network_none_and_host(any_user: UserEngine) -> None:
    assert any_user.sh("ls /sys/class/net; cat /sys/class/net/lo/flags").split() == ["lo", "0x9"]
    shown = any_user.sh("cat /proc/net/dev", "--network", "host")
    with open("/proc/net/dev", encoding="ascii") as file:
        names = re.findall(r"^ *(\S+):", file.read(), re.MULTILINE)
    assert re.findall(r"^ *(\S+):", shown, re.MULTILINE) == names


def test_namespaces_of_the_host_can_be_kept(any_user: UserEngine) -> None:
    flags = ["--pid", "host", "--ipc", "host", "--uts", "host"]
    script = f"hostname; test -d /proc/{os.getpid()} && echo seen; cat /proc/self/mountinfo"
    name, seen, *table = any_user.sh(script, *flags).splitlines()
    assert (name, seen) == (os.uname().nodename, "seen")
    targets = {mount.target for mount in mount_table("\n".join(table))}
    assert "/dev/shm" in targets
    assert ("/dev/mqueue" in targets) == os.path.ismount("/dev/mqueue")


def test_namespaces_of_another_container_are_joined(any_user: UserEngine) -> None:
    any_user.detach("--name", "first", "--ipc", "shareable", command=["sleep", "777"])
    any_user.ok("exec", "first", "sh", "-c", "echo first > /dev/shm/x")
    theirs = namespaces_of(any_user.pid("first"))
    script = "ps; readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc"
    shown = any_user.sh(script, "--pid", "container:first")
    assert "sleep 777" in shown and theirs["pid"] in shown and theirs["ipc"] not in shown
    script = "cat /dev/shm/x; readlink /proc/self/ns/ipc; stat -f -c %T /dev/mqueue"
    shown = any_user.sh(script, "--ipc", "container:first")
    assert shown.splitlines()[:2] == ["first", theirs["ipc"]]
    assert any_user.status("first") == "running"


def test_limits_are_a_warning(any_user: UserEngine) -> None:
    flags = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "20"]
    words = ["run", "--rm", *flags, "--rootfs", any_user.rootfs, "echo", "runs"]
    done = any_user.run(*words, check=True)
    assert done.stdout == "runs\n"
    warnings = done.stderr.splitlines()
    assert len(warnings) == 1 and warnings[0].startswith("Warning: --memory, --cpus, --pids-limit")
    plain = any_user.run("run", "--rm", "--rootfs", any_user.rootfs, "true", check=True)
    assert plain.stderr == ""


def test_pausing_is_refused_in_one_line(any_user: UserEngine) -> None:
    any_user.detach("--name", "n")
    assert "cgroup" in any_user.fails(1, "pause", "n")
    assert any_user.status("n") == "running"


def test_ports_need_a_bridge(any_user: UserEngine) -> None:
    words = ["run", "-p", "80:80", "--rootfs", any_user.rootfs, "true"]
    assert "needs a bridge network" in any_user.fails(125, *words)


@pytest.mark.parametrize(
    ("flags", "command", "code", "words"),
    [
        ([], ["no-such-command"], 127, "executable file not found in $PATH"),
        ([], ["/etc"], 126, "is a directory"),
        (["-u", "nobody-here"], ["true"], 125, "no matching entries in passwd file"),
        (["--ulimit", "nofile=99999999"], ["true"], 125, "RLIMIT_NOFILE"),
        (["--oom-score-adj", "-500"], ["true"], 125, "oom_score_adj"),
        (["-v", "/root/secret:/x"], ["true"], 125, "permission denied"),
        (["--sysctl", "kernel.msgmax=-7"], ["true"], 125, "msgmax"),
    ],
)
def test_failure_is_one_line_and_leaves_nothing(
    any_user: UserEngine, flags: list[str], command: list[str], code: int, words: str
) -> None:
    said = any_user.fails(code, "run", "--rm", *flags, "--rootfs", any_user.rootfs, *command)
    assert words in said
    assert any_user.leftovers() == []


def test_container_has_all_capabilities_of_the_defaults_and_none_outside(
    any_user: UserEngine,
) -> None:
    script = "grep CapEff /proc/self/status; mount -t tmpfs x /tmp 2>&1; true"
    assert any_user.sh(script).split()[1] == "00000000800405fb"
    words = ["--cap-add", "SYS_ADMIN"]
    assert any_user.sh("mount -t tmpfs x /tmp && echo mounted", *words) == "mounted\n"
    script = "date -s 2001-01-01 > /tmp/o 2>&1 || echo refused"
    assert any_user.sh(script, "--privileged") == "refused\n"


def test_files_of_the_host_stay_out_of_reach(any_user: UserEngine) -> None:
    secret = f"{any_user.base}/secret"
    with open(secret, "w", encoding="ascii") as file:
        file.write("root's\n")
    os.chmod(secret, 0o600)
    script = "cat /x/secret 2>/dev/null || echo refused"
    assert any_user.sh(script, "-v", f"{any_user.base}:/x") == "refused\n"


# One id


def test_only_root_exists_without_subordinate_ids(user_engine: UserEngine) -> None:
    for name, words in (("4711", "the uid is not mapped"), ("app", "newgidmap and /etc/subgid")):
        flags = ["--rm", "-u", name, "--rootfs", user_engine.rootfs]
        assert words in user_engine.fails(125, "run", *flags, "true")
    assert user_engine.leftovers() == []


def test_state_lies_below_the_users_directories(make_engine: Callable[..., UserEngine]) -> None:
    engine = user(make_engine, default_roots=True)
    engine.ok("run", "-d", "--name", "n", "--rootfs", engine.rootfs, "sleep", "1000")
    share = f"{engine.user.home}/.local/share/minicontainer"
    assert len(os.listdir(f"{share}/containers")) == 1
    assert len(os.listdir(f"{engine.user.runtime}/minicontainer/containers")) == 1
    assert {os.stat(path).st_uid for path in (share, f"{share}/containers")} == {UID}
    engine.ok("rm", "-f", "n")


# A range of subordinate ids


def owners(directory: str) -> set[int]:
    """The uids of everything below a directory."""
    found = set()
    for parent, children, names in os.walk(directory):
        found |= {os.lstat(os.path.join(parent, name)).st_uid for name in [*children, *names]}
    return found


def test_range_is_mapped(ranged: UserEngine) -> None:
    lines = ranged.sh("cat /proc/self/uid_map /proc/self/gid_map").splitlines()
    expected = [["0", str(UID), "1"], ["1", str(FIRST_SUBORDINATE), "65536"]]
    assert [line.split() for line in lines] == expected * 2


def test_users_of_the_container_are_subordinate_ids(ranged: UserEngine) -> None:
    fs = own_rootfs(ranged)
    ranged.ok("run", "-d", "--name", "n", "-u", "app", "--rootfs", fs, "sleep", "1000")
    with open(f"/proc/{ranged.pid('n')}/status", encoding="ascii") as file:
        assert f"Uid:\t{FIRST_SUBORDINATE + 999}\t" in file.read()
    assert ranged.ok("exec", "n", "id", "-u") == "1000\n"
    assert ranged.ok("exec", "-u", "root", "n", "id", "-u") == "0\n"


def test_supplementary_groups_work_with_a_range(ranged: UserEngine) -> None:
    shown = ranged.sh("id -G", "-u", "app", "--group-add", "4711")
    assert set(shown.split()) == {"1000", "50", "44", "4711"}


def test_files_of_subordinate_ids_are_removed(ranged: UserEngine) -> None:
    fs = own_rootfs(ranged)
    script = "mkdir -m 700 /tmp/a; touch /tmp/a/x; chown -R 1000:1000 /tmp/a; chmod 0 /tmp/a; "
    script += "mkdir /b; chown 4711 /b; su app -c 'mkdir -m 500 /home/app/c' 2>/dev/null; true"
    ranged.ok("run", "--name", "n", "--rootfs", fs, "sh", "-c", script)
    container_id = ranged.containers()[0]
    found = owners(f"{ranged.root}/containers/{container_id}")
    assert {FIRST_SUBORDINATE + 999, FIRST_SUBORDINATE + 4710} <= found
    ranged.ok("rm", "n")
    assert ranged.containers() == []
    wait_until(lambda: os.listdir(f"{ranged.root}/trash") == [], "the trash to be emptied")


def test_files_of_subordinate_ids_are_removed_with_rm_too(ranged: UserEngine) -> None:
    fs = own_rootfs(ranged)
    script = "mkdir -m 700 /tmp/a; touch /tmp/a/x; chown -R 1000:1000 /tmp/a"
    ranged.ok("run", "--rm", "--rootfs", fs, "sh", "-c", script)
    assert ranged.containers() == []
    wait_until(lambda: os.listdir(f"{ranged.root}/trash") == [], "the trash to be emptied")


def test_files_of_subordinate_ids_are_copied_out(ranged: UserEngine) -> None:
    fs = own_rootfs(ranged)
    script = "mkdir -m 700 /srv; echo hidden > /srv/x; chmod 600 /srv/x; chown -R app /srv"
    ranged.ok("run", "--name", "n", "--rootfs", fs, "sh", "-c", script)
    out = f"{ranged.user.home}/x"
    ranged.ok("cp", "n:/srv/x", out)
    with open(out, encoding="ascii") as file:
        assert file.read() == "hidden\n"
    assert os.stat(out).st_uid == UID


def test_user_name_in_subuid_is_the_hosts(ranged: UserEngine) -> None:
    with open(f"{ranged.user.base}/subuid", encoding="ascii") as file:
        assert file.read().startswith(f"{NAME}:{FIRST_SUBORDINATE}:")
    with open(f"{ranged.user.base}/subuid", "w", encoding="ascii") as file:
        file.write(f"# by number\n{UID}:{FIRST_SUBORDINATE + 5}:1000\n")
    lines = ranged.sh("cat /proc/self/uid_map").splitlines()
    assert lines[1].split() == ["1", str(FIRST_SUBORDINATE + 5), "1000"]
