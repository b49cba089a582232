"""Hostile trees: whatever a rootfs or a volume holds, the host's files stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from minicontainer import kernel
from tests.support import rootfs as rootfs_builder
from tests.support.inside import mount_at, mount_table
from tests.support.runner import TOP, Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root


def snapshot(root: str) -> dict[str, tuple[object, ...]]:
    """Everything that a write of any kind below `root` would change."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, children, names in os.walk(root):
        for name in [".", *children, *names]:
            path = os.path.join(directory, name)
            facts = os.lstat(path)
            found[os.path.relpath(path, root)] = (
                facts.st_mode,
                facts.st_uid,
                facts.st_gid,
                facts.st_size,
                facts.st_rdev,
                facts.st_ino,
                facts.st_nlink,
                facts.st_mtime_ns,
                facts.st_ctime_ns,
            )
    return found


@pytest.fixture
def fs(engine: Engine) -> str:
    return rootfs_builder.build(f"{engine.base}/fs")


@pytest.fixture
def victim(engine: Engine) -> str:
    """A directory of the host that nothing in a container may reach."""
    path = f"{engine.base}/victim"
    os.makedirs(f"{path}/inner")
    with open(f"{path}/canary", "w", encoding="ascii") as file:
        file.write("the host's\n")
    return path


# The rootfs is never written


def test_rootfs_stays_as_it_was(engine: Engine, fs: str) -> None:
    source = f"{engine.base}/source"
    os.mkdir(source)
    before = snapshot(fs)
    script = "echo x > /etc/passwd; rm -r /home; chmod 700 /etc; touch /bin/busybox; mkdir /new; "
    script += "chown 5:5 /etc/group; mv /etc/group /moved; ln /bin/busybox /hard; echo done"
    flags = ["-v", f"{source}:/a/b/c", "-v", f"{source}:/home/app", "--tmpfs", "/t/m/p"]
    flags += ["-w", "/work/here", "--device", "/dev/null:/opt/null", "--hostname", "x"]
    words = ["run", "--rm", *flags, "--rootfs", fs, "sh", "-c", script]
    assert "done" in engine.run(*words).stdout
    engine.detach("--name", "d", "--read-only", "-t")
    engine.ok("exec", "d", "true")
    engine.ok("rm", "-f", "d")
    assert snapshot(fs) == before


def test_rootfs_without_any_mount_point_will_do(engine: Engine) -> None:
    fs = f"{engine.base}/bare"
    os.makedirs(f"{fs}/bin")
    os.link(f"{engine.rootfs}/bin/busybox", f"{fs}/bin/sh")
    before = snapshot(fs)
    script = "cd /; echo *; cat /etc/hostname"
    assert engine.ok("run", "--rm", "--rootfs", fs, "/bin/sh", "-c", script) == (
        "bin dev etc proc sys\nminicontainer\n"
    )
    assert snapshot(fs) == before


# Links in the rootfs at the places we mount on (CVE-2019-19921, 2023-27561, 2021-30465)


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/tmp", "victim", "missing", "file"])
def test_proc_and_sys_must_be_real_directories(
    engine: Engine, fs: str, victim: str, name: str, target: str
) -> None:
    os.rmdir(f"{fs}/{name}")
    if target == "file":
        rootfs_builder.write(fs, name, "")
    else:
        os.symlink(victim if target == "victim" else target, f"{fs}/{name}")
    before = snapshot(victim)
    said = engine.fails(125, "run", "--rm", "--rootfs", fs, "true")
    assert f"/{name}" in said
    assert snapshot(victim) == before
    assert engine.leftovers() == []


@pytest.mark.parametrize("name", ["dev", "etc"])
@pytest.mark.parametrize("target", ["{victim}", "/../../../..{victim}", "/tmp", "../tmp"])
def test_directory_that_is_a_link_is_followed_inside_only(
    engine: Engine, fs: str, victim: str, name: str, target: str
) -> None:
    for entry in os.listdir(f"{fs}/{name}"):
        os.unlink(f"{fs}/{name}/{entry}")
    os.rmdir(f"{fs}/{name}")
    os.symlink(target.format(victim=victim), f"{fs}/{name}")
    before = snapshot(victim)
    shown = engine.run("run", "--rm", "--rootfs", fs, "sh", "-c", "cat /proc/self/mountinfo")
    assert snapshot(victim) == before
    if shown.returncode == 0:
        where = os.path.normpath("/" + target.format(victim=victim).lstrip("./"))
        mount = where if name == "dev" else f"{where}/hosts"
        assert mount_at(mount_table(shown.stdout), mount)
    assert engine.leftovers() == []


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
def test_file_of_ours_over_a_link_does_not_reach_the_host(
    engine: Engine, fs: str, victim: str, name: str
) -> None:
    if os.path.exists(f"{fs}/etc/{name}"):
        os.unlink(f"{fs}/etc/{name}")
    os.symlink(f"{victim}/canary", f"{fs}/etc/{name}")
    before = snapshot(victim)
    engine.run("run", "--rm", "--rootfs", fs, "sh", "-c", f"echo x > /etc/{name}")
    engine.run("run", "--rm", "--rootfs", fs, "-v", f"{victim}:/v", "true")
    assert snapshot(victim) == before


@pytest.mark.parametrize("target", ["{victim}", "../../../../..{victim}", "/proc/1/root{victim}"])
@pytest.mark.parametrize("mount", ["/data", "/data/inner", "/data/new/deep"])
def test_volume_over_a_link_stays_inside(
    engine: Engine, fs: str, victim: str, target: str, mount: str
) -> None:
    source = f"{engine.base}/source"
    os.mkdir(source)
    os.symlink(target.format(victim=victim), f"{fs}/data")
    before = snapshot(victim)
    flags = ["-v", f"{source}:{mount}", "--tmpfs", f"{mount}/t"]
    done = engine.run("run", "--rm", *flags, "--rootfs", fs, "cat", "/proc/self/mountinfo")
    assert snapshot(victim) == before
    if done.returncode == 0:
        targets = {found.target for found in mount_table(done.stdout)}
        inside = mount.replace("/data", victim, 1)
        assert inside in targets and f"{inside}/t" in targets
    assert engine.leftovers() == []


def test_device_and_working_directory_over_links_stay_inside(
    engine: Engine, fs: str, victim: str
) -> None:
    os.symlink(victim, f"{fs}/out")
    os.symlink(f"{victim}/made", f"{fs}/nowhere")
    before = snapshot(victim)
    flags = ["--device", "/dev/null:/out/null", "-w", "/out/work", "--tmpfs", "/nowhere"]
    engine.run("run", "--rm", *flags, "--rootfs", fs, "touch", "/out/x")
    assert snapshot(victim) == before


def test_loop_of_links_ends_in_an_error(engine: Engine, fs: str) -> None:
    os.symlink("b", f"{fs}/a")
    os.symlink("a", f"{fs}/b")
    said = engine.fails(125, "run", "--rm", "--tmpfs", "/a/x", "--rootfs", fs, "true")
    assert "ELOOP" in said
    assert engine.leftovers() == []


def test_masks_are_made_of_the_hosts_null_device(engine: Engine, fs: str, victim: str) -> None:
    """What the image has at /dev/null, /dev/pts or /dev/console is nobody's source of anything."""
    rootfs_builder.write(fs, "dev/null", "planted\n")
    os.symlink(f"{victim}/canary", f"{fs}/dev/console")
    os.symlink(victim, f"{fs}/dev/pts")
    os.mknod(f"{fs}/dev/zero", 0o20666, os.makedev(1, 1))
    before = snapshot(victim)
    script = "cat /proc/keys /dev/null; stat -c '%t:%T' /dev/zero; tty"
    words = ["run", "--rm", "-t", "--rootfs", fs, "sh", "-c", script]
    assert engine.run(*words).stdout.split() == ["1:5", "/dev/pts/0"]
    assert snapshot(victim) == before


# A race: something swaps a directory and a link while containers are being made


class Swapper(threading.Thread):
    """Exchanges two names over and over until it is told to stop."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.names = (first, second)
        self.over = threading.Event()
        self.count = 0

    def run(self) -> None:
        here, exchange = kernel.AT_FDCWD, 2  # RENAME_EXCHANGE
        first, second = self.names
        while not self.over.is_set():
            kernel.renameat2(here, first, here, second, exchange)
            self.count += 1
            time.sleep(0.0001)


def run_during(swapper: Swapper, start: Callable[[], None], seconds: float = 3.0) -> int:
    """How often `start` came to its end while the names were being swapped; at most 30 times."""
    swapper.start()
    deadline = time.monotonic() + seconds
    times = 0
    try:
        while times < 30 and time.monotonic() < deadline:
            start()
            times += 1
    finally:
        swapper.over.set()
        swapper.join()
    return times


def test_swapped_directory_in_a_volume_leads_nowhere_else(engine: Engine, victim: str) -> None:
    shared, other = f"{engine.base}/shared", f"{engine.base}/other"
    os.makedirs(f"{shared}/dir/inner")
    os.mkdir(other)
    os.symlink(victim, f"{shared}/link")
    before = snapshot(victim)
    flags = ["-v", f"{shared}:/v", "-v", f"{other}:/v/dir/inner", "--tmpfs", "/v/dir/made"]
    flags += ["-w", "/v/dir/work"]
    script = "touch /v/dir/inner/mark /v/dir/made/mark /v/dir/work/mark; true"

    def start() -> None:
        words = ["run", "--rm", *flags, "--rootfs", engine.rootfs, "sh", "-c", script]
        assert engine.run(*words).returncode in (0, 125)

    swapper = Swapper(f"{shared}/dir", f"{shared}/link")
    assert run_during(swapper, start) > 3
    assert swapper.count > 100
    assert snapshot(victim) == before
    assert engine.leftovers() == []


def test_swapped_directory_in_the_rootfs_leads_nowhere_else(
    engine: Engine, fs: str, victim: str
) -> None:
    other = f"{engine.base}/other"
    os.mkdir(other)
    os.makedirs(f"{fs}/d/dir/inner")
    os.symlink(victim, f"{fs}/d/link")
    before = snapshot(victim)
    flags = ["-v", f"{other}:/d/dir/inner", "--tmpfs", "/d/dir/made", "-w", "/d/dir/work"]
    flags += ["--device", "/dev/null:/d/dir/null"]

    def start() -> None:
        words = ["run", "--rm", *flags, "--rootfs", fs, "sh", "-c", "touch /d/dir/inner/x; true"]
        assert engine.run(*words).returncode in (0, 125)

    swapper = Swapper(f"{fs}/d/dir", f"{fs}/d/link")
    assert run_during(swapper, start) > 3
    assert snapshot(victim) == before
    assert engine.leftovers() == []


# No module of the container's is ever imported by a process of ours inside it

LIST_MODULES = """
import json, sys, sysconfig
names = set(getattr(sys, "stdlib_module_names", ())) | set(sys.builtin_module_names)
names |= {"traceback", "linecache", "codecs", "socket", "json", "re", "signal", "struct", "pwd"}
print(json.dumps([sorted(names), [p for p in sys.path if p]]))
"""
PLANTED = "open('/mnt/' + __name__, 'w').close()\n"


@pytest.fixture
def planted(engine: Engine, fs: str) -> str:
    """A rootfs with fakes of every module, wherever our interpreter looks for them."""
    answer = subprocess.run(
        [sys.executable, "-c", LIST_MODULES], stdout=subprocess.PIPE, text=True, check=True
    )
    names, directories = json.loads(answer.stdout)
    for directory in {os.path.realpath(path) for path in (*directories, TOP)}:
        here = fs + directory
        os.makedirs(f"{here}/encodings", exist_ok=True)
        for name in names:
            with open(f"{here}/{name}.py", "w", encoding="ascii") as file:
                file.write(PLANTED)
        for name in ("idna", "latin_1", "punycode", "ascii", "__init__"):
            with open(f"{here}/encodings/{name}.py", "w", encoding="ascii") as file:
                file.write(PLANTED)
    for directory, _, files in os.walk(f"{TOP}/minicontainer"):
        os.makedirs(fs + directory, exist_ok=True)
        for name in files:
            with open(f"{fs}{directory}/{name}", "w", encoding="ascii") as file:
                file.write(PLANTED)
    os.mkdir(f"{engine.base}/marks")
    os.chmod(f"{engine.base}/marks", 0o1777)
    return fs


def test_no_module_of_the_container_is_imported(engine: Engine, planted: str) -> None:
    marks = f"{engine.base}/marks"
    start = ["run", "--rm", "-v", f"{marks}:/mnt"]
    rootfs = ["--rootfs", planted]
    ends = [
        ([], ["true"], 0),
        (["-t"], ["true"], 0),
        (["-u", "app"], ["true"], 0),
        (["-u", "nobody-here"], ["true"], 125),
        (["-u", "\udcff"], ["true"], 125),
        (["-w", "/etc/passwd/x"], ["true"], 125),
        (["--sysctl", "net.nothing=1"], ["true"], 125),
        ([], ["no-such-command"], 127),
        ([], ["/etc/passwd"], 126),
        ([], ["/n\udcfft"], 127),
        (["--ulimit", "nofile=10:10"], ["true"], 0),
    ]
    for flags, command, code in ends:
        done = engine.run(*start, *flags, *rootfs, *command)
        assert done.returncode == code, (flags, command, done.stderr)
        assert "internal error" not in done.stderr
    engine.ok(*start[:1], "-d", "--name", "n", *start[2:], *rootfs, "sleep", "100")
    for flags, command, code in ends:
        if flags[:1] in ([], ["-u"], ["-w"]):
            done = engine.run("exec", *flags, "n", *command)
            assert done.returncode in (code, 126), (flags, command, done.stderr)
            assert "internal error" not in done.stderr
    assert os.listdir(marks) == []


def test_the_planted_modules_would_be_found(engine: Engine, planted: str) -> None:
    """The same tree, used by an interpreter that does look there: the trap works."""
    marks = f"{engine.base}/marks"
    python = os.path.realpath(sys.executable)
    directory = planted + os.path.realpath(os.path.dirname(os.__file__))
    program = f"import sys; sys.path[:] = [{directory!r}]; import traceback"
    script = f'mount --bind {marks} /mnt && exec {python} -S -c "$0"'
    subprocess.run(["unshare", "--mount", "sh", "-c", script, program], check=True)
    assert os.listdir(marks) == ["traceback"]
