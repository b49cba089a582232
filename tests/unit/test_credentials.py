"""primitives/credentials: users of a hostile image, looked up safely; and becoming one."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import kernel
from minicontainer.errors import Error, KernelError, UsageError
from minicontainer.primitives import capabilities, credentials
from tests.support.child import in_child, status_masks

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
alice:x:1000:1001:Alice:/home/alice:/bin/sh
2000:x:3000:3001::/home/numeric:/bin/sh
twin:x:1000:1500::/home/twin:/bin/sh
bare:x:1200:1200
relative:x:1201:1201::home:/bin/sh
keep:x:4294967295:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
broken
"""
GROUP = b"""\
root:x:0:
daemon:x:1:alice
users:x:100:bob,alice
5000:x:6000:
alice:x:1001:
disk:x:6:root
huge:x:4294967295:alice
"""


# --- looking up -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, (0, 0, [0, 6], "/root")),
        ("", (0, 0, [0, 6], "/root")),
        ("root", (0, 0, [0, 6], "/root")),
        ("0", (0, 0, [0, 6], "/root")),
        ("alice", (1000, 1001, [1001, 1, 100], "/home/alice")),
        ("1000", (1000, 1001, [1001, 1, 100], "/home/alice")),
        ("alice:users", (1000, 100, [100], "/home/alice")),
        ("alice:77", (1000, 77, [77], "/home/alice")),
        ("1000:1", (1000, 1, [1], "/home/alice")),
        ("4242", (4242, 0, [0], "/")),
        ("4242:4243", (4242, 4243, [4243], "/")),
        ("2147483647", (2147483647, 0, [0], "/")),
        ("2000", (3000, 3001, [3001], "/home/numeric")),
        ("alice:5000", (1000, 6000, [6000], "/home/alice")),
        ("bare", (1200, 1200, [1200], "/")),
        ("relative", (1201, 1201, [1201], "/")),
        ("000", (0, 0, [0, 6], "/root")),
    ],
)
def test_a_user_is_what_the_containers_own_files_say(spec, expected):
    assert credentials.resolve_user(spec, [], PASSWD, GROUP) == expected


def test_without_files_numbers_still_work():
    assert credentials.resolve_user(None, [], None, None) == (0, 0, [0], "/")
    assert credentials.resolve_user("7:8", ["9"], None, None) == (7, 8, [8, 9], "/")
    assert credentials.home_of(0, None) == "/"


def test_group_add_takes_names_and_numbers_once_each():
    found = credentials.resolve_user("alice", ["daemon", "100", "777", "5000"], PASSWD, GROUP)
    assert found[2] == [1001, 1, 100, 777, 6000]


def test_home_of_is_the_first_entry_with_that_uid():
    assert credentials.home_of(1000, PASSWD) == "/home/alice"
    assert credentials.home_of(4242, PASSWD) == "/"


@pytest.mark.parametrize(
    "spec", ["bob", "-1", "keep", "minus", "broken", "+1", "1e3", "٣", "root "]
)
def test_a_user_without_entry_is_an_error_in_the_words_of_the_field(spec):
    with pytest.raises(UsageError) as refusal:
        credentials.resolve_user(spec, [], PASSWD, GROUP)
    assert str(refusal.value) == (f"unable to find user {spec}: no matching entries in passwd file")
    assert refusal.value.exit_code == 125


@pytest.mark.parametrize("group", ["nobody", "-1", "huge"])
def test_a_group_without_entry_is_an_error_in_the_words_of_the_field(group):
    sentence = f"unable to find group {group}: no matching entries in group file"
    with pytest.raises(UsageError, match=sentence):
        credentials.resolve_user(f"root:{group}", [], PASSWD, GROUP)
    with pytest.raises(UsageError, match=sentence):
        credentials.resolve_user("root", [group], PASSWD, GROUP)


@pytest.mark.parametrize("spec", [":", "root:", ":root", "a:b:c", "0:0:", "::"])
def test_another_form_than_user_and_group_is_refused(spec):
    with pytest.raises(UsageError, match=r"expected name\|uid"):
        credentials.split_user(spec)


@pytest.mark.parametrize("spec", ["4294967295", "2147483648", "0:4294967295", "9" * 5000])
def test_ids_that_would_mean_keep_or_do_not_fit_are_refused(spec):
    with pytest.raises(UsageError, match="range 0-2147483647"):
        credentials.resolve_user(spec, [], PASSWD, GROUP)


def test_a_home_with_undecodable_bytes_survives():
    home = credentials.resolve_user("x", [], b"x:x:1:1::/h\xff:/bin/sh", None)[3]
    assert os.fsencode(home) == b"/h\xff"


NAMES = st.text("ab01:-,# \n\0٣é", max_size=6)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(
            lambda name, uid, gid: f"{name}:x:{uid}:{gid}:{name},a:/{name}".encode(),
            NAMES,
            st.integers(-2, 2**33),
            st.integers(-2, 2**33),
        ),
    ),
    max_size=8,
)


@given(st.none() | NAMES, st.lists(NAMES, max_size=3), LINES, LINES)
def test_no_file_makes_it_do_anything_but_answer_in_range_or_refuse(spec, added, passwd, group):
    files = b"\n".join(passwd), b"\n".join(group)
    try:
        uid, gid, groups, home = credentials.resolve_user(spec, added, *files)
    except UsageError:
        return
    assert 0 <= uid <= 2**31 - 1
    assert groups[0] == gid
    assert len(set(groups)) == len(groups)
    assert all(0 <= number <= 2**31 - 1 for number in groups)
    assert home.startswith("/")
    assert "\0" not in home


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_a_listed_user_is_found_by_name_and_by_number(uid, gid):
    passwd = b"other:x:%d:5::/other\nme:x:%d:%d::/me\n" % ((uid + 1) % 2**31, uid, gid)
    expected = (uid, gid, [gid], "/me")
    assert credentials.resolve_user("me", [], passwd, b"") == expected
    assert credentials.resolve_user(str(uid), [], passwd, b"") == expected


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture(params=["openat2", "by components"])
def read(request, tmp_path):
    """read_database on tmp_path, with openat2 and as on a kernel that has none."""
    (tmp_path / "etc").mkdir()

    def answer() -> dict[str, object]:
        if request.param == "by components":
            refuse_openat2()
        before = sorted(os.listdir("/proc/self/fd"))
        root_fd = os.open(tmp_path, os.O_PATH)
        report: dict[str, object] = {}
        try:
            data = credentials.read_database(root_fd, "etc/passwd")
            report["data"] = None if data is None else data.decode("latin-1")
        except Error as failure:
            report["error"] = str(failure)
        os.close(root_fd)
        report["leaked"] = sorted(os.listdir("/proc/self/fd")) != before
        return report

    def run() -> object:
        report = in_child(answer)
        assert not report["leaked"]
        return report.get("error", report.get("data"))

    return run


def refuse_openat2() -> None:
    """A seccomp filter under which openat2 is answered as by a kernel before 5.6."""
    instructions = (
        (0x20, 0, 0, 0),  # load the number of the system call
        (0x15, 0, 1, kernel.SYS_openat2),
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    kernel.seccomp(kernel.SECCOMP_SET_MODE_FILTER, 0, program)


def test_the_bytes_of_a_regular_file_are_read(read, tmp_path):
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    assert read() == PASSWD.decode()


def test_a_missing_file_is_none(read):
    assert read() is None


def test_a_link_to_the_hosts_file_is_not_followed(read, tmp_path):
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    assert read() is None


def test_a_directory_that_is_a_link_does_not_lead_out_of_the_root(read, tmp_path):
    (tmp_path / "etc").rmdir()
    (tmp_path / "etc").symlink_to("/etc")
    assert read() is None


def test_a_fifo_does_not_make_us_wait(read, tmp_path):
    os.mkfifo(tmp_path / "etc/passwd")
    assert read() is None


def test_a_directory_is_none(read, tmp_path):
    (tmp_path / "etc/passwd").mkdir()
    assert read() is None


def test_a_file_in_the_place_of_the_directory_is_none(read, tmp_path):
    (tmp_path / "etc").rmdir()
    (tmp_path / "etc").write_bytes(b"")
    assert read() is None


@pytest.mark.root
def test_a_device_is_not_opened(read, tmp_path):
    try:
        os.mknod(tmp_path / "etc/passwd", 0o666 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("mknod is refused here")
    assert read() is None


def test_ten_mebibytes_are_read_and_one_byte_more_is_refused(read, tmp_path):
    (tmp_path / "etc/passwd").touch()
    os.truncate(tmp_path / "etc/passwd", credentials.LARGEST_DATABASE)
    assert len(read()) == credentials.LARGEST_DATABASE
    os.truncate(tmp_path / "etc/passwd", credentials.LARGEST_DATABASE + 1)
    assert read() == "/etc/passwd of the container is larger than 10 MiB"


# --- becoming -------------------------------------------------------------------------------------


def masks(bits: int, uid: int) -> dict[str, int]:
    held = bits if uid == 0 else 0
    return {
        "bounding": bits,
        "effective": held,
        "permitted": held,
        "inheritable": 0,
        "ambient": 0,
    }


def become(uid: int, gid: int, groups: list[int], **changes: object) -> dict[str, object]:
    """The state of a child that has become the user."""
    bits = capabilities.DEFAULT & capabilities.bounding()
    wanted = {"umask": 0o022, "caps": masks(bits, uid), "no_new_privs": False, **changes}

    def act() -> dict[str, object]:
        os.umask(0o077)
        credentials.become(uid, gid, groups, **wanted)  # type: ignore[arg-type]
        return {
            "uids": os.getresuid(),
            "gids": os.getresgid(),
            "groups": sorted(os.getgroups()),
            "umask": os.umask(0),
            "masks": status_masks(),
            "dumpable": kernel.prctl(3),  # PR_GET_DUMPABLE
            "keepcaps": kernel.prctl(kernel.PR_GET_KEEPCAPS),
            "no_new_privs": kernel.prctl(39),  # PR_GET_NO_NEW_PRIVS
        }

    found: dict[str, object] = in_child(act)
    return found


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, 1000])
def test_become_leaves_the_sets_of_the_confinement_page(uid):
    bits = capabilities.DEFAULT & capabilities.bounding()
    held = bits if uid == 0 else 0
    assert become(uid, 1001, [1001, 5]) == {
        "uids": [uid] * 3,
        "gids": [1001] * 3,
        "groups": [5, 1001],
        "umask": 0o022,
        "masks": {"CapBnd": bits, "CapEff": held, "CapPrm": held, "CapInh": 0, "CapAmb": 0},
        "dumpable": 0,
        "keepcaps": 0,
        "no_new_privs": 0,
    }


@pytest.mark.root
def test_become_sets_no_new_privs_when_asked_and_leaves_the_umask_without_one():
    found = become(1000, 1000, [], umask=None, no_new_privs=True)
    assert (found["no_new_privs"], found["umask"], found["groups"]) == (1, 0o077, [])


@pytest.mark.root
def test_a_user_other_than_root_can_keep_ambient_capabilities():
    kill = 1 << kernel.CAP_KILL
    caps = dict.fromkeys(capabilities.SETS, kill)
    assert become(1000, 1000, [], caps=caps)["masks"] == dict.fromkeys(
        ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"), kill
    )


def in_single_id_namespace(gid_of_host: int, groups: list[int]) -> str:
    """ "" or the failure of becoming root with `groups` where setgroups is denied."""

    def act() -> str:
        if os.geteuid() == 0:
            os.setgroups([54321])
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"{gid_of_host} {gid} 1"),
        ):
            kernel.write_file(f"/proc/self/{name}", text)
        try:
            credentials.become(0, gid_of_host, groups, None, masks(1, 0), False)
        except KernelError as failure:
            return str(failure)
        return ""

    answer: str = in_child(act)
    return answer


def test_denied_setgroups_is_tolerated_where_no_group_is_asked_for():
    assert in_single_id_namespace(0, []) == ""
    assert in_single_id_namespace(0, [0]) == ""


def test_denied_setgroups_is_an_error_where_another_group_is_asked_for():
    assert "setgroups" in in_single_id_namespace(0, [0, 5])


@pytest.mark.root
def test_groups_of_the_host_are_never_kept_for_want_of_setgid():
    def act() -> str:
        os.setgroups([54321])
        effective, permitted, _ = kernel.capget()
        without = ~(1 << kernel.CAP_SETGID)
        kernel.capset(effective & without, permitted & without, 0)
        try:
            credentials.become(0, 0, [0], None, masks(1, 0), False)
        except KernelError as failure:
            return str(failure)
        return ""

    assert "setgroups" in in_child(act)
