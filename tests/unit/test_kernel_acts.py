"""The calls of `os` at the door."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.steps import kernel_error


def test_failures_carry_the_call(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kernel.mkdir(f"{tmp_path}/a/b", 0o755)
    assert caught.value.call == f'mkdir("{tmp_path}/a/b", 0755)'
    directory = kernel.open(str(tmp_path), kernel.O_PATH | kernel.O_DIRECTORY)
    with pytest.raises(FileNotFoundError) as caught:
        kernel.unlink("gone", dir_fd=directory)
    assert caught.value.call == f'unlinkat({directory}, "gone")'
    kernel.close(directory)
    with pytest.raises(OSError) as caught_again:
        kernel.close(directory)
    assert caught_again.value.call == f"close({directory})"


def test_a_step_makes_one_line_of_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        kernel.rmdir(f"{tmp_path}/x")
    error = kernel_error("remove the directory", caught.value)
    assert str(error) == (
        f'remove the directory: rmdir("{tmp_path}/x"): no such file or directory (ENOENT)'
    )
    assert (error.errno, error.syscall) == (errno.ENOENT, "rmdir")


def test_write_file_is_one_write(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with pytest.raises(FileNotFoundError):
        kernel.write_file(str(path), "1")
    path.write_text("")
    kernel.write_file(str(path), "über")
    assert path.read_bytes() == "über".encode()
    directory = kernel.open(str(tmp_path), kernel.O_PATH)
    kernel.write_file("control", b"\xff", dir_fd=directory)
    assert path.read_bytes()[:1] == b"\xff"
    kernel.close(directory)
    with pytest.raises(OSError) as caught:
        kernel.write_file("/proc/self/oom_score_adj", "nonsense")
    assert caught.value.call == 'write_file("/proc/self/oom_score_adj", "nonsense")'


def test_arguments_and_results_are_those_of_os(tmp_path: Path) -> None:
    fd = kernel.open(f"{tmp_path}/f", os.O_CREAT | os.O_RDWR, 0o640)
    assert kernel.write(fd, b"abc") == 3
    assert os.stat(f"{tmp_path}/f").st_mode & 0o777 == 0o640
    kernel.replace(f"{tmp_path}/f", f"{tmp_path}/g")
    kernel.symlink("g", f"{tmp_path}/h")
    assert os.readlink(f"{tmp_path}/h") == "g"
    kernel.ftruncate(fd, 1)
    assert os.fstat(fd).st_size == 1
    kernel.close(fd)
