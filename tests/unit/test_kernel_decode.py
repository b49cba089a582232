"""Calls as text."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.kernel import decode

NOT_CALLS = {"poll", "signal_number", "read"}  # nothing fails in them, or too often to be told


def test_a_mount_reads_as_strace_writes_it() -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    assert decode.call("mount", ("proc", "/x", "proc", flags, None)) == (
        'mount("proc", "/x", "proc", MS_NOSUID|MS_NODEV, NULL)'
    )
    flags = kernel.MS_REC | kernel.MS_PRIVATE
    assert decode.call("mount", (None, "/", None, flags, None)) == (
        'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)'
    )
    assert decode.call("mount", ("overlay", "/x", "overlay", 0, "lowerdir=/")) == (
        'mount("overlay", "/x", "overlay", 0, "lowerdir=/")'
    )


@pytest.mark.parametrize(
    ("prefixes", "value", "text"),
    [
        ("CLONE_", kernel.CLONE_NEWTIME | kernel.CLONE_NEWNS, "CLONE_NEWTIME|CLONE_NEWNS"),
        ("O_", kernel.O_RDONLY, "O_RDONLY"),
        ("O_", kernel.O_RDWR | kernel.O_CLOEXEC, "O_RDWR|O_CLOEXEC"),
        ("O_", kernel.O_TMPFILE | kernel.O_WRONLY, "O_WRONLY|O_TMPFILE"),
        ("O_", kernel.O_SYNC, "O_RDONLY|O_SYNC"),
        (
            "OPEN_TREE_|AT_",
            kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE | kernel.OPEN_TREE_CLOEXEC,
            "OPEN_TREE_CLONE|AT_RECURSIVE|OPEN_TREE_CLOEXEC",
        ),
        ("MS_", 1 << 31 | kernel.MS_BIND, "MS_BIND|0x80000000"),
        ("MS_", 0, "0"),
        ("MOUNT_ATTR_", kernel.MOUNT_ATTR__ATIME, "MOUNT_ATTR_NOATIME|MOUNT_ATTR_STRICTATIME|0x40"),
    ],
)
def test_flags_have_their_names(prefixes: str, value: int, text: str) -> None:
    assert decode.flags(prefixes, value) == text


@pytest.mark.parametrize(
    ("prefix", "value", "text"),
    [
        ("SIG", 9, "SIGKILL"),
        ("SIG", 37, "SIGRTMIN+3"),
        ("SIG", 34, "SIGRTMIN"),
        ("SIG", 0, "0"),
        ("CAP_", 40, "CAP_CHECKPOINT_RESTORE"),
        ("PR_", 1, "PR_SET_PDEATHSIG"),
        ("FSCONFIG_", 6, "FSCONFIG_CMD_CREATE"),
        ("FSCONFIG_", 99, "99"),
    ],
)
def test_one_value_has_one_name(prefix: str, value: int, text: str) -> None:
    assert decode.choice(prefix, value) == text


def test_prctl_speaks_the_words_of_its_option() -> None:
    def prctl(*values: int) -> str:
        return decode.call("prctl", (*values, *[0] * (5 - len(values))))

    assert prctl(kernel.PR_CAPBSET_DROP, 0) == "prctl(PR_CAPBSET_DROP, CAP_CHOWN)"
    assert prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_RAISE, 12) == (
        "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN)"
    )
    assert prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL) == (
        "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)"
    )
    assert prctl(kernel.PR_SET_NO_NEW_PRIVS, 1) == "prctl(PR_SET_NO_NEW_PRIVS, 1)"
    assert prctl(kernel.PR_SET_PDEATHSIG, 9) == "prctl(PR_SET_PDEATHSIG, SIGKILL)"


def test_masks_of_capabilities() -> None:
    assert decode.call("capset", (3, 1 << 21, 0)) == (
        "capset(CAP_CHOWN|CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, 0x0)"
    )
    assert decode.call("capset", (2**41 - 1, 0, 0)).startswith("capset(0x1ffffffffff, ")


def test_calls_relative_to_a_directory_have_the_kernels_name() -> None:
    assert decode.call("mkdir", ("x", 0o755), {"dir_fd": 5}) == 'mkdirat(5, "x", 0755)'
    assert decode.call("mkdir", ("x", 0o755), {"dir_fd": None}) == 'mkdir("x", 0755)'
    assert decode.call("unlink", ("x",), {"dir_fd": 5}) == 'unlinkat(5, "x")'
    assert decode.call("symlink", ("to", "x"), {"dir_fd": 5}) == 'symlinkat("to", 5, "x")'
    both = {"src_dir_fd": 5, "dst_dir_fd": 6}
    assert decode.call("rename", ("a", "b"), both) == 'renameat(5, "a", 6, "b")'
    assert decode.call("mknod", ("null", 0o20666, 0x103), {"dir_fd": 5}) == (
        'mknodat(5, "null", S_IFCHR|0666, makedev(1, 3))'
    )
    assert decode.call("utime", ("x",), {"ns": (1, 2), "dir_fd": 5}) == 'utimeat(5, "x", ns=(1, 2))'


def test_data_is_shortened_and_paths_are_not() -> None:
    assert decode.call("write", (3, b"a" * 500)) == f'write(3, "{"a" * 48}"...)'
    assert decode.call("chdir", ("/" + "a" * 500,)).endswith('aaa")')


def test_strings_cannot_break_the_line() -> None:
    assert decode.quoted('a"b\\c\n\0') == '"a\\"b\\\\c\\n\\0"'
    assert decode.quoted("\x1b[31m\u2028é") == '"\\x1b[31m\\xe2\\x80\\xa8é"'
    assert decode.quoted("\udcff") == '"\\xff"'
    assert decode.quoted(b"\xff\n") == '"ÿ\\n"'


def test_descriptors_and_programs_stay_short() -> None:
    assert decode.call("execve", ("/bin/sh", ["sh", "-c", "x"], {"A": "secret"})) == (
        'execve("/bin/sh", ["sh", "-c", "x"], {1 variables})'
    )
    assert decode.call("seccomp", (1, 1, b"x" * 80)) == (
        "seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, 80 bytes)"
    )
    assert decode.call("openat2", (kernel.AT_FDCWD, "x", 0, 0, kernel.RESOLVE_IN_ROOT)) == (
        'openat2(AT_FDCWD, "x", O_RDONLY|O_CLOEXEC, 00, RESOLVE_IN_ROOT)'
    )
    assert decode.call("block_signals", ([15, 37],)) == "block_signals([TERM RTMIN+3])"
    most = (set(range(1, 65)) - {9, 19},)
    assert decode.call("block_signals", most) == "block_signals(~[KILL STOP])"
    assert decode.call("prctl", (kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)) == "prctl(PR_SET_DUMPABLE, 0)"
    assert decode.call("send_message", (3, b"x", ())) == 'send_message(3, "x")'
    assert decode.call("send_message", (3, b"x", [4])) == 'send_message(3, "x", [4])'


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("bpf", (0, b""), 'bpf(BPF_MAP_CREATE, "")'),
        ("bpf", (kernel.BPF_PROG_QUERY, b""), 'bpf(BPF_PROG_QUERY, "")'),
        ("netlink_open", (kernel.NETLINK_NETFILTER,), "netlink_open(NETLINK_NETFILTER)"),
        ("seccomp", (kernel.SECCOMP_GET_ACTION_AVAIL, 0), "seccomp(SECCOMP_GET_ACTION_AVAIL, 0)"),
        ("waitid", (kernel.P_PIDFD, 3), "waitid(P_PIDFD, 3)"),
        ("unix_listen", ("x", 1, 0o600, 1), 'unix_listen("x", 1, 0600, SOCK_STREAM)'),
    ],
)
def test_values_of_one_prefix_are_not_mixed_up(
    name: str, values: tuple[object, ...], text: str
) -> None:
    assert decode.call(name, values) == text


def test_every_call_of_the_door_is_in_one_table() -> None:
    functions = {
        name
        for name, value in vars(kernel).items()
        if callable(value) and not name.startswith("_") and not inspect.isclass(value)
    }
    tables = decode.SIGNATURES.keys() | decode.READING.keys()
    assert tables == functions - NOT_CALLS
    assert not decode.SIGNATURES.keys() & decode.READING.keys()


def test_a_row_has_a_kind_for_each_parameter() -> None:
    package = Path(decode.__file__).parent
    rows = {**decode.SIGNATURES, **decode.READING}
    for name in ("mounting", "processes", "signals", "sockets", "terminals"):
        tree = ast.parse((package / f"{name}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in rows:
                assert len(node.args.args) - len(rows[node.name].split()) in (0, 1), node.name
