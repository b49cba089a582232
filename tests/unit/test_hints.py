"""Advice for failed calls."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minicontainer import hints
from minicontainer.kernel import decode


@pytest.mark.parametrize(
    ("attempt", "call", "number", "words"),
    [
        ("make namespaces", "unshare(CLONE_NEWNET)", errno.ENOSPC, "user.max_net_namespaces"),
        ("x", "unshare(CLONE_NEWPID|CLONE_NEWNS)", errno.ENOSPC, "max_mnt_namespaces"),
        ("x", "unshare(CLONE_NEWUSER)", errno.EUSERS, "nested"),
        ("x", 'mount("x", "/y", "nosuchfs", 0, NULL)', errno.ENODEV, "modprobe nosuchfs"),
        ("x", 'mount("overlay", "/y", "overlay", 0, "lowerdir=/")', errno.EINVAL, "overlay"),
        ("mount the overlay", "fsconfig(3, FSCONFIG_CMD_CREATE)", errno.EINVAL, "--root"),
        ("x", 'pivot_root(".", ".")', errno.EINVAL, "mount point"),
        ("x", "openat2(3)", errno.ENOSYS, "Linux 5.6"),
        ("x", "mount_setattr(3)", errno.ENOSYS, "Linux 5.12"),
        ("x", "some_call()", errno.ENOSYS, "seccomp"),
        ("x", 'mkdir("/x", 0755)', errno.ENOSPC, "disk is full"),
        ("x", 'mkdir("/x", 0755)', errno.EROFS, "--root"),
        ("x", "", errno.EMFILE, "ulimit -n"),
        ("x", 'rmdir("/sys/fs/cgroup/x")', errno.EBUSY, "processes"),
        ("x", 'write_file("/sys/fs/cgroup/memory.max", "1")', errno.EBUSY, "control group"),
        ("x", "setresuid(1, 1, 1)", errno.EINVAL, "not mapped"),
        ("x", "fork()", errno.EAGAIN, "pids.max"),
        ("x", 'open("/dev/ptmx", O_RDWR)', errno.ENOSPC, "kernel.pty.max"),
        ("x", 'open("/x", O_RDWR)', errno.ENOSPC, "full"),
    ],
)
def test_there_is_advice(attempt: str, call: str, number: int, words: str) -> None:
    advice = hints.advice(attempt, call, number)
    assert advice is not None and words in advice


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ('mount("x", "/y", "tmpfs", 0, NULL)', errno.EINVAL),
        ('open("/x", O_RDONLY)', errno.ENOENT),
        ('rmdir("/x")', errno.EBUSY),
        ("", 0),
        ("unknown(", 12345),
    ],
)
def test_there_is_no_advice_where_we_have_none(call: str, number: int) -> None:
    assert hints.advice("try", call, number) is None


def test_advice_to_become_root_is_not_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert hints.advice("x", 'mkdir("/x", 0755)', errno.EACCES) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert hints.advice("x", 'mkdir("/x", 0755)', errno.EACCES) == "this needs root"


def test_settings_of_the_machine_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"kernel/unprivileged_userns_clone": "0", "user/max_user_namespaces": "0"}
    monkeypatch.setattr(hints, "_setting", settings.get)
    advice = hints.advice("x", "unshare(CLONE_NEWUSER)", errno.EPERM)
    assert advice == "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
    advice = hints.advice("x", "unshare(CLONE_NEWNS|CLONE_NEWUSER)", errno.ENOSPC)
    assert advice == "user namespaces are switched off: raise user.max_user_namespaces"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    settings = {"kernel/apparmor_restrict_unprivileged_userns": "1"}
    monkeypatch.setattr(hints, "_setting", settings.get)
    advice = hints.advice("x", "unshare(CLONE_NEWUSER)", errno.EPERM)
    assert advice is not None and "AppArmor" in advice


def test_rows_are_for_calls_that_the_door_has() -> None:
    known = decode.SIGNATURES.keys() | decode.READING.keys() | {"", "mknodat", "pidfd_getfd"}
    assert {name for name, _ in hints._TABLE} <= known
    assert set(hints._SINCE) <= known


def test_a_setting_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert hints._setting("kernel/no_such_setting") is None
    assert hints._setting("kernel/ostype") == "Linux"
