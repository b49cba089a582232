"""The door's calls on real kernel objects, each in a child with namespaces of its own."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.kernel import netlink, procfs
from tests.support.child import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[2]
PRIVATE = kernel.MS_REC | kernel.MS_PRIVATE


def alone(act: Callable[[], Any], more: int = 0) -> Any:
    """`act()` in a child with a mount namespace of its own; a missing call skips the test."""

    def child() -> Any:
        kernel.unshare(kernel.CLONE_NEWNS | more)
        kernel.mount(None, "/", None, PRIVATE)
        try:
            return {"value": act()}
        except OSError as failure:
            if failure.errno != errno.ENOSYS:
                raise
            return {"missing": getattr(failure, "call", "")}

    answer = in_child(child)
    if "missing" in answer:
        pytest.skip(f"this kernel lacks {answer['missing']}")
    return answer["value"]


def fstype_at(target: str) -> list[str]:
    return [mount.fstype for mount in procfs.mountinfo() if mount.target == target]


def options_at(target: str) -> list[str]:
    return next(mount.options for mount in procfs.mountinfo() if mount.target == target)


def test_mount_bind_remount_and_umount(tmp_path: Path) -> None:
    where = str(tmp_path)

    def act() -> list[Any]:
        kernel.mount("none", where, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=711,size=1m")
        Path(where, "dir").mkdir()
        kernel.mount(where, f"{where}/dir", None, kernel.MS_BIND)
        kernel.mount(
            None, f"{where}/dir", None, kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY
        )
        options = options_at(f"{where}/dir")
        with pytest.raises(OSError) as caught:
            kernel.mkdir(f"{where}/dir/x")
        kernel.umount2(f"{where}/dir", kernel.MNT_DETACH)
        return [oct(os.stat(where).st_mode), "ro" in options, caught.value.errno, fstype_at(where)]

    assert alone(act) == [oct(stat.S_IFDIR | 0o711), True, errno.EROFS, ["tmpfs"]]
    assert fstype_at(where) == []


def test_a_file_system_without_a_mount_point_is_attached_by_descriptor(tmp_path: Path) -> None:
    where = str(tmp_path)

    def act() -> list[Any]:
        context = kernel.fsopen("tmpfs")
        kernel.fsconfig(context, kernel.FSCONFIG_SET_STRING, "size", "1m", 0)
        kernel.fsconfig(context, kernel.FSCONFIG_CMD_CREATE, None, None, 0)
        mount = kernel.fsmount(context, attributes=kernel.MOUNT_ATTR_NOSUID)
        detached = kernel.statfs_type(mount)
        kernel.move_mount(mount, "", kernel.AT_FDCWD, where, kernel.MOVE_MOUNT_F_EMPTY_PATH)
        kernel.syncfs(os.open(where, os.O_RDONLY))
        options = options_at(where)
        return [detached, kernel.statfs_type(where), "nosuid" in options]

    assert alone(act) == [kernel.TMPFS_MAGIC, kernel.TMPFS_MAGIC, True]


def test_a_context_says_what_it_does_not_like() -> None:
    def act() -> list[str]:
        context = kernel.fsopen("tmpfs")
        with pytest.raises(OSError) as caught:
            kernel.fsconfig(context, kernel.FSCONFIG_SET_STRING, "nonsense", "1", 0)
        return [
            caught.value.call.partition(",")[2],  # type: ignore[attr-defined]
            caught.value.detail,  # type: ignore[attr-defined]
        ]

    call, detail = alone(act)
    assert call == ' FSCONFIG_SET_STRING, "nonsense", "1", 0)'
    assert "nonsense" in detail and "nknown parameter" in detail


def test_a_copy_of_a_tree_gets_its_own_attributes(tmp_path: Path) -> None:
    where = str(tmp_path)

    def act() -> list[Any]:
        tree = kernel.open_tree(
            kernel.AT_FDCWD, "/usr", kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE
        )
        kernel.mount_setattr(
            tree,
            "",
            kernel.AT_EMPTY_PATH | kernel.AT_RECURSIVE,
            attr_set=kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOEXEC,
            propagation=kernel.MS_PRIVATE,
        )
        kernel.move_mount(tree, "", kernel.AT_FDCWD, where, kernel.MOVE_MOUNT_F_EMPTY_PATH)
        options = options_at(where)
        return ["ro" in options, "noexec" in options, os.path.isdir(f"{where}/bin")]

    assert alone(act) == [True, True, True]


def test_openat2_stays_in_its_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "inside").write_text("x")
    (tmp_path / "out").symlink_to("/etc/inside")
    (tmp_path / "magic").symlink_to("/proc/self/root")

    def act() -> list[Any]:
        root = kernel.open(str(tmp_path), kernel.O_PATH | kernel.O_DIRECTORY)
        inside = kernel.openat2(root, "out", kernel.O_RDONLY, 0, kernel.RESOLVE_IN_ROOT)
        with pytest.raises(OSError) as beneath:
            kernel.openat2(root, "../x", kernel.O_RDONLY, 0, kernel.RESOLVE_BENEATH)
        with pytest.raises(OSError) as link:
            kernel.openat2(root, "out", kernel.O_RDONLY, 0, kernel.RESOLVE_NO_SYMLINKS)
        new = kernel.openat2(
            root, "new", kernel.O_CREAT | kernel.O_WRONLY, 0o600, kernel.RESOLVE_IN_ROOT
        )
        return [
            os.read(inside, 10).decode(),
            beneath.value.errno,
            link.value.errno,
            stat.S_IMODE(os.fstat(new).st_mode),
        ]

    assert alone(act) == ["x", errno.EXDEV, errno.ELOOP, 0o600]


def test_pivot_root_leaves_the_old_root_behind(tmp_path: Path) -> None:
    where = str(tmp_path)

    def act() -> list[Any]:
        kernel.mount("none", where, "tmpfs")
        Path(where, "here").touch()
        kernel.chdir(where)
        kernel.pivot_root(".", ".")
        kernel.umount2(".", kernel.MNT_DETACH)
        kernel.chdir("/")
        return os.listdir("/")

    assert alone(act) == ["here"]


def test_host_and_domain_names_are_the_namespaces_own() -> None:
    def act() -> list[str]:
        kernel.sethostname("inner")
        kernel.setdomainname("inner.domain")
        uname = os.uname()
        with open("/proc/sys/kernel/domainname", encoding="ascii") as file:
            return [uname.nodename, file.read().strip()]

    assert alone(act, kernel.CLONE_NEWUTS) == ["inner", "inner.domain"]
    assert os.uname().nodename != "inner"


def test_setns_joins_what_another_process_has() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: kernel.unshare(kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC),
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()

        def by_path() -> bool:
            fd = kernel.open(f"/proc/{other.pid}/ns/uts", kernel.O_RDONLY)
            kernel.setns(fd, kernel.CLONE_NEWUTS)
            return same("uts")

        def by_pidfd() -> bool:
            fd = kernel.pidfd_open(other.pid)
            kernel.setns(fd, kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
            return same("uts") and same("ipc")

        def same(kind: str) -> bool:
            here = procfs.namespace_inode("self", kind)
            return here == procfs.namespace_inode(other.pid, kind)

        assert alone(by_path)
        assert alone(by_pidfd)
    finally:
        other.kill()
        other.communicate()


def test_a_pidfd_signals_its_process_and_no_other() -> None:
    def act() -> list[Any]:
        pid = kernel.fork()
        if pid == 0:
            while True:
                os.read(os.pipe()[0], 1)
        fd = kernel.pidfd_open(pid)
        kernel.pidfd_send_signal(fd, kernel.SIGKILL)
        found = kernel.waitid(kernel.P_PIDFD, fd, kernel.WEXITED)
        with pytest.raises(ProcessLookupError):
            kernel.pidfd_send_signal(fd, 0)
        return [found is not None and found.si_status]

    assert alone(act) == [kernel.SIGKILL]


def test_capabilities_are_given_up() -> None:
    def act() -> list[Any]:
        effective, permitted, _ = kernel.capget()
        kernel.prctl(kernel.PR_CAPBSET_DROP, kernel.CAP_SYS_BOOT)
        kept = permitted & ~(1 << kernel.CAP_SYS_BOOT)
        kernel.capset(effective & kept & 0xFF, kept, 1 << kernel.CAP_CHOWN)
        status = procfs.read_status()
        return [
            kernel.capget() == (effective & kept & 0xFF, kept, 1),
            int(status["CapPrm"], 16) == kept,
            int(status["CapBnd"], 16) >> kernel.CAP_SYS_BOOT & 1,
            kernel.prctl(kernel.PR_CAPBSET_READ, kernel.CAP_SYS_BOOT),
        ]

    assert alone(act) == [True, True, 0, 0]


def test_a_seccomp_program_is_obeyed() -> None:
    def act() -> list[Any]:
        # Load the number; is it personality's? then EPERM, else allow.
        number = __import__("minicontainer.kernel.sysno", fromlist=["x"])
        nr = number.table(kernel.MACHINE)["personality"]
        program = b"".join(
            code.to_bytes(2, sys.byteorder) + bytes((yes, no)) + k.to_bytes(4, sys.byteorder)
            for code, yes, no, k in (
                (kernel.BPF_LD | kernel.BPF_W | kernel.BPF_ABS, 0, 0, 0),
                (kernel.BPF_JMP | kernel.BPF_JEQ | kernel.BPF_K, 0, 1, nr),
                (kernel.BPF_RET | kernel.BPF_K, 0, 0, kernel.SECCOMP_RET_ERRNO | errno.EPERM),
                (kernel.BPF_RET | kernel.BPF_K, 0, 0, kernel.SECCOMP_RET_ALLOW),
            )
        )
        before = kernel.personality(0xFFFFFFFF)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.seccomp(kernel.SECCOMP_SET_MODE_FILTER, 0, program)
        with pytest.raises(PermissionError) as caught:
            kernel.personality(0xFFFFFFFF)
        return [before, caught.value.call]  # type: ignore[attr-defined]

    assert alone(act) == [0, "personality(4294967295)"]


def test_an_ebpf_program_is_checked_by_the_verifier() -> None:
    def act() -> list[Any]:
        good = bytes.fromhex("b7000000010000009500000000000000")
        fd = kernel.bpf_load(kernel.BPF_PROG_TYPE_CGROUP_DEVICE, good, "allow")
        with pytest.raises(OSError) as caught:
            kernel.bpf_load(kernel.BPF_PROG_TYPE_CGROUP_DEVICE, good[8:], "no_result")
        return [
            "bpf" in os.readlink(f"/proc/self/fd/{fd}"),
            caught.value.call,  # type: ignore[attr-defined]
            "R0" in caught.value.detail,  # type: ignore[attr-defined]
        ]

    call = 'bpf_load(BPF_PROG_TYPE_CGROUP_DEVICE, 8 bytes, "no_result")'
    assert alone(act) == [True, call, True]


def test_a_session_keyring_is_joined() -> None:
    def act() -> list[Any]:
        first = kernel.join_session_keyring(None)
        second = kernel.join_session_keyring(None)
        known = kernel.keyctl(kernel.KEYCTL_GET_KEYRING_ID, kernel.KEY_SPEC_SESSION_KEYRING, 0)
        return [first > 0, first != second, known == second]

    assert alone(act) == [True, True, True]


def test_limits_personality_and_memfd() -> None:
    def act() -> list[Any]:
        kernel.setrlimit(kernel.RLIMIT_NOFILE, (100, 200))
        limits = kernel.getrlimit(kernel.RLIMIT_NOFILE)
        kernel.setrlimit(kernel.RLIMIT_CORE, (0, -1))
        kernel.personality(kernel.ADDR_NO_RANDOMIZE)
        fd = kernel.memfd_create("sealed", kernel.MFD_ALLOW_SEALING)
        return [
            list(limits),
            list(kernel.getrlimit(kernel.RLIMIT_CORE)),
            kernel.personality(0xFFFFFFFF),
            os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:sealed"),
        ]

    assert alone(act) == [[100, 200], [0, -1], kernel.ADDR_NO_RANDOMIZE, True]


def test_execveat_of_a_descriptor_with_arguments_and_environment() -> None:
    def act() -> str:
        read_fd, write_fd = os.pipe()
        pid = kernel.fork()
        if pid == 0:
            os.dup2(write_fd, 1)
            shell = kernel.open("/bin/sh", kernel.O_PATH)
            argv = ["sh", "-c", 'printf "%s|" "$0" "$@" "$NAME"', "zero", "one", "zwölf"]
            try:
                kernel.execveat(shell, "", argv, {"NAME": "a=b"}, kernel.AT_EMPTY_PATH)
            finally:
                os._exit(99)
        os.close(write_fd)
        kernel.waitpid(pid, 0)
        return os.read(read_fd, 1000).decode()

    assert alone(act) == "zero|one|zwölf|a=b|"


def test_nodes_and_extended_attributes(tmp_path: Path) -> None:
    where = str(tmp_path)

    def act() -> list[Any]:
        kernel.mount("none", where, "tmpfs")
        directory = kernel.open(where, kernel.O_PATH | kernel.O_DIRECTORY)
        kernel.mknod("null", kernel.S_IFCHR | 0o600, os.makedev(1, 3), dir_fd=directory)
        kernel.setxattr(where, "trusted.overlay.opaque", b"y")
        status = os.stat(f"{where}/null")
        kernel.symlink("a", f"{where}/b")
        kernel.renameat2(directory, "b", directory, "null", kernel.RENAME_EXCHANGE)
        with pytest.raises(FileExistsError):
            kernel.renameat2(directory, "b", directory, "null", kernel.RENAME_NOREPLACE)
        return [
            stat.S_ISCHR(status.st_mode),
            status.st_rdev == os.makedev(1, 3),
            kernel.getxattr(where, "trusted.overlay.opaque").decode(),
            os.readlink(f"{where}/null"),
        ]

    assert alone(act) == [True, True, "y", "a"]


def test_loopback_comes_up_in_a_new_network_namespace() -> None:
    def act() -> list[Any]:
        with netlink.Connection() as connection:
            index = connection.index("lo")
            before = connection.request(kernel.RTM_GETLINK, {"index": index})[0]["flags"]
            netlink.link_up(index)
            after = connection.request(kernel.RTM_GETLINK, {"index": index})[0]["flags"]
            addresses = connection.request(
                kernel.RTM_GETADDR, {"family": kernel.AF_INET}, kernel.NLM_F_DUMP
            )
        return [
            index,
            before & kernel.IFF_UP,
            after & kernel.IFF_UP,
            [list(address["LOCAL"]) for address in addresses],
        ]

    assert alone(act, kernel.CLONE_NEWNET) == [1, 0, kernel.IFF_UP, [[127, 0, 0, 1]]]


def test_a_veth_pair_is_made_in_one_message() -> None:
    def act() -> list[Any]:
        with netlink.Connection() as connection:
            new = kernel.NLM_F_CREATE | kernel.NLM_F_EXCL
            bridge: dict[str, Any] = {"IFNAME": "br0", "LINKINFO": {"KIND": "bridge"}}
            connection.request(kernel.RTM_NEWLINK, bridge, new)
            master = connection.index("br0")
            peer = {"IFNAME": "eth0", "ADDRESS": b"\x02\0\0\0\0\1"}
            veth = {
                "IFNAME": "veth0",
                "MASTER": master,
                "flags": kernel.IFF_UP,
                "change": kernel.IFF_UP,
                "LINKINFO": {"KIND": "veth", "DATA": {"PEER": peer}},
            }
            connection.request(kernel.RTM_NEWLINK, veth, new)
            with pytest.raises(FileExistsError) as caught:
                connection.request(kernel.RTM_NEWLINK, bridge, new)
            links = connection.request(kernel.RTM_GETLINK, {}, kernel.NLM_F_DUMP)
        found = {link["IFNAME"]: link for link in links}
        return [
            found["veth0"]["MASTER"] == master,
            found["eth0"]["ADDRESS"].hex(),
            found["veth0"]["LINKINFO"]["SLAVE_KIND"],
            caught.value.call,  # type: ignore[attr-defined]
        ]

    call = (
        "netlink(RTM_NEWLINK, NLM_F_EXCL|NLM_F_CREATE, {IFNAME=br0, LINKINFO={'KIND': 'bridge'}})"
    )
    assert alone(act, kernel.CLONE_NEWNET) == [True, "020000000001", "bridge", call]


def test_strace_sees_nothing_that_our_trace_does_not_tell(tmp_path: Path) -> None:
    """mount, pivot_root, unshare, setns, sethostname and capset, call by call, in order."""
    names = ("mount", "umount2", "pivot_root", "unshare", "setns", "sethostname", "capset")
    program = f"""
import os
from minicontainer import kernel, trace
trace.enable(trace.writer({str(tmp_path / "ours")!r}))
kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
kernel.sethostname("inner")
kernel.setns(kernel.open("/proc/self/ns/uts", kernel.O_RDONLY), kernel.CLONE_NEWUTS)
kernel.mount("none", {str(tmp_path)!r}, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
kernel.chdir({str(tmp_path)!r})
kernel.pivot_root(".", ".")
kernel.umount2(".", kernel.MNT_DETACH)
kernel.capset(0, *kernel.capget()[1:])
"""
    log = tmp_path / "theirs"
    strace = ["strace", "-f", "-o", str(log), "-e", f"trace={','.join(names)}"]
    try:
        subprocess.run([*strace, sys.executable, "-c", program], check=True, cwd=ROOT)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    theirs = [line.split(" ", 1)[1].strip() for line in log.read_text().splitlines()]
    theirs = [line for line in theirs if line.startswith(names)]
    ours = [
        line.partition("] ")[2].rpartition(" <")[0]
        for line in (tmp_path / "ours").read_text().splitlines()
        if line.partition("] ")[2].startswith(names)
    ]
    assert [line.partition("(")[0] for line in ours] == [line.partition("(")[0] for line in theirs]
    exact = ("pivot_root", "setns", "umount2", "unshare")
    for our, their in zip(ours, theirs):
        if our.startswith(exact):
            assert our.replace(" ", "") == their.replace(" ", "")
