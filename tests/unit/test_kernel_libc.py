"""Prototypes, the check of results, encoding; and what importing the door pulls in."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from minicontainer import kernel
from minicontainer.kernel import libc


def test_a_failure_is_the_right_oserror_with_the_call() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kernel.umount2("/nonexistent/x", kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.call == 'umount2("/nonexistent/x", MNT_DETACH|UMOUNT_NOFOLLOW)'
    with pytest.raises(OSError) as caught_again:
        kernel.setns(-1, kernel.CLONE_NEWNET)
    assert caught_again.value.errno == errno.EBADF
    assert caught_again.value.call == "setns(-1, CLONE_NEWNET)"


def test_defaults_are_in_the_call_too() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kernel.mount("none", "/nonexistent", "proc")
    assert caught.value.call == 'mount("none", "/nonexistent", "proc", 0, NULL)'
    with pytest.raises(OSError) as caught_again:
        kernel.prctl(kernel.PR_CAPBSET_DROP, arg2=200)
    assert caught_again.value.call == "prctl(PR_CAPBSET_DROP, 200)"


def test_success_leaves_no_errno_behind_to_stumble_on() -> None:
    with pytest.raises(OSError):
        kernel.syncfs(-1)
    assert kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS) in (0, 1)


def test_a_function_the_library_lacks_is_enosys() -> None:
    missing = libc.library("no_such_function_anywhere", "i")

    def unshare(flags: int) -> int:  # named as the door's, so that the table knows it
        return missing(flags)

    with pytest.raises(OSError) as caught:
        unshare(kernel.CLONE_NEWNS)
    assert caught.value.errno == errno.ENOSYS
    assert caught.value.call == "unshare(CLONE_NEWNS)"  # type: ignore[attr-defined]


def test_a_call_the_kernel_lacks_is_enosys() -> None:
    function = libc.syscall("i")
    with pytest.raises(OSError) as caught:
        function(-1, 0)
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize("path", ["a\0b", "\0"])
def test_a_null_byte_never_shortens_a_path(path: str) -> None:
    with pytest.raises(ValueError):
        kernel.umount2(path)
    with pytest.raises(ValueError):
        kernel.mount(path, "/x", "proc")


def test_undecodable_paths_go_through() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kernel.umount2("/nonexistent/\udcff")
    assert caught.value.call == 'umount2("/nonexistent/\\xff", 0)'


def test_numbers_are_laid_out_in_the_machines_order() -> None:
    assert libc.words((1, 2**64 - 1), 8) == (1).to_bytes(8, sys.byteorder) + b"\xff" * 8
    assert libc.number(libc.words((77,), 4)) == 77
    with pytest.raises(OverflowError):
        libc.words((-1,), 4)


def test_a_failing_output_call_leaves_its_buffer_usable() -> None:
    with pytest.raises(OSError):
        kernel.get_window_size(-1)
    with pytest.raises(OSError):
        kernel.getrlimit(999)


def test_importing_the_door_is_cheap() -> None:
    """No `ctypes`, `struct`, `signal`, `socket`: each costs more than the door."""
    program = (
        "import sys; before = set(sys.modules); from minicontainer import kernel;"
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-S", "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    foreign = {name for name in output if not name.startswith("minicontainer")}
    assert foreign - {"os", "stat", "_stat", "posixpath", "genericpath", "os.path"} <= {
        "_ctypes",
        "__future__",
        "_collections_abc",
        "abc",
        "_abc",
    }
