"""-u and --group-add: who the command is, by the container's own passwd and group, even hostile."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.inside import DEFAULT_CAPABILITIES, capabilities, status
from tests.support.runner import Engine, wait_until

pytestmark = pytest.mark.root

LARGEST = 2**31 - 1


def who(engine: Engine, *flags: str, rootfs: str = "") -> tuple[str, str, set[str], str]:
    """uid, gid, groups and HOME of the command; the ids are the same in all four places."""
    words = ["run", "--rm", *flags, "--rootfs", rootfs or engine.rootfs]
    shown = engine.ok(*words, "sh", "-c", "cat /proc/self/status; echo HOME: $HOME")
    found = status(shown)
    (uid,), (gid,) = set(found["Uid"].split()), set(found["Gid"].split())
    return uid, gid, set(found["Groups"].split()), found["HOME"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("app", ("1000", "1000", {"1000", "50", "44"}, "/home/app")),
        ("1000", ("1000", "1000", {"1000", "50", "44"}, "/home/app")),
        ("01000", ("1000", "1000", {"1000", "50", "44"}, "/home/app")),
        ("other", ("1001", "1001", {"1001", "50"}, "/home/other")),
        ("app:staff", ("1000", "50", {"50"}, "/home/app")),
        ("app:4711", ("1000", "4711", {"4711"}, "/home/app")),
        ("4711", ("4711", "0", {"0"}, "/")),
        ("4711:42", ("4711", "42", {"42"}, "/")),
        ("4711:video", ("4711", "44", {"44"}, "/")),
        ("4242", ("77", "77", {"77"}, "/")),  # a name that looks like a number
        ("0", ("0", "0", {"0"}, "/root")),
        ("root:daemon", ("0", "1", {"1"}, "/root")),
        (str(LARGEST), (str(LARGEST), "0", {"0"}, "/")),
    ],
)
def test_user_is_looked_up_in_the_container(
    engine: Engine, spec: str, expected: tuple[str, str, set[str], str]
) -> None:
    assert who(engine, "-u", spec) == expected


def test_group_add_adds_names_and_numbers(engine: Engine) -> None:
    flags = ["-u", "other", "--group-add", "video", "--group-add=4711"]
    assert who(engine, *flags) == ("1001", "1001", {"1001", "50", "44", "4711"}, "/home/other")


def test_group_add_works_for_root_too(engine: Engine) -> None:
    assert who(engine, "--group-add", "staff")[2] == {"0", "50"}


def test_groups_of_the_caller_are_not_inherited(engine: Engine) -> None:
    words = ["run", "--rm", "--rootfs", engine.rootfs, "grep", "Groups", "/proc/self/status"]
    shown = engine.ok(*words, preexec_fn=lambda: os.setgroups([0, 4, 27, 12345]))
    assert shown.split() == ["Groups:", "0"]


def test_exec_is_the_containers_user_unless_told_otherwise(engine: Engine) -> None:
    engine.detach("--name", "u", "-u", "app", "--group-add", "4711")
    assert engine.ok("exec", "u", "id") == (
        "uid=1000(app) gid=1000(app) groups=44(video),50(staff),1000(app),4711\n"
    )
    assert engine.ok("exec", "-u", "other:daemon", "u", "sh", "-c", "id -u; id -g; id -G") == (
        "1001\n1\n1\n"
    )


def test_files_made_by_the_user_are_the_users(engine: Engine) -> None:
    assert engine.sh("touch /tmp/x; stat -c '%u %g %a' /tmp/x", "-u", "app") == "1000 1000 644\n"


def test_user_may_reopen_the_standard_streams(engine: Engine) -> None:
    script = "echo a > /dev/stdout; echo b > /proc/self/fd/1; echo c >> /dev/stderr"
    done = engine.run(
        "run", "--rm", "-u", "app", "--rootfs", engine.rootfs, "sh", "-c", script, check=True
    )
    assert (done.stdout, done.stderr) == ("a\nb\n", "c\n")


# What is refused


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("app:nogroup-here", "unable to find group nogroup-here"),
        ("app:", "expected name|uid[:group|gid]"),
        (":staff", "USER[:GROUP]"),
        ("a:b:c", "USER[:GROUP]"),
        ("-1", "unable to find user -1"),
        ("2147483648", "0-2147483647"),
        ("4294967295", "0-2147483647"),
        ("4294967296", "0-2147483647"),
        ("0:4294967295", "0-2147483647"),
        ("1000 ", "unable to find user"),
        ("0x10", "unable to find user"),
        ("\u0661", "unable to find user"),
    ],
)
def test_user_that_cannot_be_is_refused(engine: Engine, spec: str, sentence: str) -> None:
    words = ["run", "--rm", f"--user={spec}", "--rootfs", engine.rootfs, "id"]
    assert sentence in engine.fails(125, *words)
    assert engine.leftovers() == []


def test_unknown_group_to_add_is_refused(engine: Engine) -> None:
    words = ["run", "--rm", "--group-add", "nope", "--rootfs", engine.rootfs, "id"]
    assert "unable to find group nope" in engine.fails(125, *words)
    assert engine.leftovers() == []


# Hostile images. What is not a regular file beneath the root does not exist.


@pytest.fixture
def hostile(engine: Engine) -> str:
    """A rootfs of the test's own, without passwd and group."""
    fs = rootfs_builder.build(f"{engine.base}/fs")
    os.unlink(f"{fs}/etc/passwd")
    os.unlink(f"{fs}/etc/group")
    return fs


def refuses_name_but_takes_number(engine: Engine, fs: str) -> None:
    began = time.monotonic()
    said = engine.fails(125, "run", "--rm", "-u", "app", "--rootfs", fs, "id", timeout=20)
    assert "no matching entries in passwd file" in said
    assert who(engine, "-u", "1234:5", rootfs=fs) == ("1234", "5", {"5"}, "/")
    assert time.monotonic() - began < 15


def test_image_without_passwd_takes_numbers(engine: Engine, hostile: str) -> None:
    refuses_name_but_takes_number(engine, hostile)
    assert who(engine, rootfs=hostile) == ("0", "0", {"0"}, "/")


def test_fifo_as_passwd_does_not_hang(engine: Engine, hostile: str) -> None:
    os.mkfifo(f"{hostile}/etc/passwd")
    os.mkfifo(f"{hostile}/etc/group")
    refuses_name_but_takes_number(engine, hostile)


def test_device_as_passwd_is_not_opened(engine: Engine, hostile: str) -> None:
    for name in ("passwd", "group"):
        os.mknod(f"{hostile}/etc/{name}", 0o20666, os.makedev(1, 5))  # zero has no end
    refuses_name_but_takes_number(engine, hostile)


def test_directory_as_passwd_is_none(engine: Engine, hostile: str) -> None:
    os.mkdir(f"{hostile}/etc/passwd")
    refuses_name_but_takes_number(engine, hostile)


@pytest.mark.parametrize("prefix", ["", "../../../../../..", "/proc/self/root"])
def test_link_as_passwd_does_not_lead_to_the_host(
    engine: Engine, hostile: str, prefix: str
) -> None:
    own = f"{engine.base}/passwd"
    with open(own, "w", encoding="ascii") as file:
        file.write("app:x:6666:6666::/stolen:/bin/sh\n")
    os.symlink(prefix + own, f"{hostile}/etc/passwd")
    refuses_name_but_takes_number(engine, hostile)


def test_etc_that_is_a_link_is_followed_inside_only(engine: Engine, hostile: str) -> None:
    # /etc -> the host's directory of that name would be: inside it leads to a copy of the image.
    elsewhere = f"{engine.base}/etc"
    os.mkdir(elsewhere)
    with open(f"{elsewhere}/passwd", "w", encoding="ascii") as file:
        file.write("app:x:6666:6666::/stolen:/bin/sh\n")
    shutil.rmtree(f"{hostile}/etc")
    os.makedirs(hostile + elsewhere)
    rootfs_builder.write(hostile, f"{elsewhere[1:]}/passwd", "app:x:1234:5::/own:/bin/sh\n")
    os.symlink(elsewhere, f"{hostile}/etc")
    assert who(engine, "-u", "app", rootfs=hostile) == ("1234", "5", {"5"}, "/own")
    assert sorted(os.listdir(elsewhere)) == ["passwd"]


def test_huge_passwd_is_refused_in_bounded_time_and_memory(engine: Engine, hostile: str) -> None:
    with open(f"{hostile}/etc/passwd", "wb") as file:
        file.truncate(1 << 40)
    said = engine.fails(125, "run", "--rm", "-u", "app", "--rootfs", hostile, "id")
    assert "/etc/passwd of the container is larger than 10 MiB" in said
    assert engine.leftovers() == []


def test_malformed_lines_are_passed_over(engine: Engine, hostile: str) -> None:
    lines = [
        b"",
        b"#comment",
        b"short:x",
        b"app:x:-1:0::/minus:/bin/sh",
        b"app:x:4294967295:0::/keep:/bin/sh",
        b"app:x::0::/empty:/bin/sh",
        b"app:x:0x3e8:0::/hex:/bin/sh",
        b"app:x: 5:0::/blank:/bin/sh",
        b"\xff\xfe:x:5:5::/\xff:/bin/sh",
        b"x" * 70000 + b":x:1:1::/:/bin/sh",
        b"app:x:1000:77:\xff:/home/\xe4pp:/bin/sh:more:fields",
    ]
    with open(f"{hostile}/etc/passwd", "wb") as file:
        file.write(b"\n".join(lines))
    assert who(engine, "-u", "app", rootfs=hostile) == ("1000", "77", {"77"}, "/home/\udce4pp")


def test_passwd_that_calls_a_user_root_gives_no_capabilities(engine: Engine, hostile: str) -> None:
    rootfs_builder.write(hostile, "etc/passwd", "root:x:1000:1000::/:/bin/sh\n")
    words = ["run", "--rm", "-u", "root", "--rootfs", hostile, "cat", "/proc/self/status"]
    found = capabilities(status(engine.ok(*words)))
    assert found["CapEff"] == found["CapPrm"] == 0
    assert found["CapBnd"] == DEFAULT_CAPABILITIES


def test_name_that_is_uid_zero_is_root(engine: Engine, hostile: str) -> None:
    rootfs_builder.write(hostile, "etc/passwd", "toor:x:0:0::/t:/bin/sh\n")
    words = ["run", "--rm", "-u", "toor", "--rootfs", hostile, "cat", "/proc/self/status"]
    assert capabilities(status(engine.ok(*words)))["CapEff"] == DEFAULT_CAPABILITIES


def test_container_that_makes_its_passwd_a_fifo_does_not_hang_exec(engine: Engine) -> None:
    script = "rm /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group; echo up; sleep 100"
    engine.detach("--name", "n", command=["sh", "-c", script])
    wait_until(lambda: engine.ok("logs", "n"), "its trap")
    said = engine.fails(126, "exec", "-u", "app", "n", "true", timeout=20)
    assert "no matching entries in passwd file" in said
    assert engine.ok("exec", "-u", "12", "n", "sh", "-c", "echo still here") == "still here\n"
