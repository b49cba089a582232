"""scripts/gen: its preprocessor, and that what is checked in is what it writes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def load_headers() -> Any:
    path = ROOT / "scripts" / "headers.py"
    specification = importlib.util.spec_from_file_location("headers", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def headers(tmp_path: Path) -> Any:
    """Headers of a machine whose include directory is ours to write."""
    found = load_headers().Headers("x86_64")
    found.roots = [str(tmp_path)]
    found.directory = tmp_path
    return found


def values(headers: Any, text: str, **more: str) -> Any:
    for name, content in {"main.h": text, **more}.items():
        (headers.directory / name.replace("_h", ".h")).write_text(content)
    headers.gather(["main.h"])
    return headers.value


def test_defines_and_enumerations_are_computed(headers: Any) -> None:
    value = values(
        headers,
        """
        #define A 0x10 /* a comment
                          of two lines */
        #define B (A << 2) // another
        #define C 020UL
        #define D (B|C)
        #define LONG A + \\
            1
        #define NAME "text"
        #define FUNCTION(x) (x)
        #define SELF SELF
        enum { FIRST, SECOND = 5, THIRD, LAST = THIRD, };
        #define CHAR 'T'
        """,
    )
    names = ("A", "B", "C", "D", "LONG", "FIRST", "SECOND", "THIRD", "LAST", "CHAR")
    assert [value(name) for name in names] == [16, 64, 16, 80, 17, 0, 5, 6, 6, 84]
    assert [value(name) for name in ("NAME", "FUNCTION", "SELF", "NOWHERE")] == [None] * 4


def test_conditions_choose_what_is_read(headers: Any) -> None:
    value = values(
        headers,
        """
        #ifdef __x86_64__
        # include <other.h>
        #else
        # define A 1
        #endif
        #if defined(NOPE) || (VERSION < 3 && !defined NOPE)
        # define B 1
        #elif VERSION == 3
        # define B 2
        #else
        # define B 3
        #endif
        #ifndef A
        # define A 9
        # ifdef __x86_64__
        #  define INNER 1
        # endif
        #endif
        #undef C
        """,
        other_h="#define A 7\n#define VERSION 3\n#define C 1\n",
    )
    assert [value(name) for name in ("A", "B", "C", "INNER")] == [7, 2, None, None]


def test_ioctl_numbers_follow_the_machines_layout(headers: Any) -> None:
    value = values(
        headers,
        """
        #define _IOC_NONE 0U
        #define _IOC_WRITE 1U
        #define _IOC_READ 2U
        #define _IOC_SIZEBITS 14
        #define GROUP 0xb7
        #define TIOCGPTN _IOR('T', 0x30, unsigned int)
        #define TIOCGPTPEER _IO('T', 0x41)
        #define NS _IO(GROUP, 0x1)
        #define BOTH _IOWR('x', 1, __u64)
        """,
    )
    assert value("TIOCGPTN") == 0x80045430
    assert value("TIOCGPTPEER") == 0x5441
    assert value("NS") == 0xB701
    assert value("BOTH") == 0xC0087801


def gen(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(directory / "scripts" / "gen"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what scripts/gen reads and writes."""
    for name in ("scripts/gen", "scripts/headers.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "minicontainer" / "kernel", tmp_path / "minicontainer" / "kernel")
    return tmp_path


needs_headers = pytest.mark.skipif(
    not os.path.isdir(f"/usr/include/{os.uname().machine}-linux-gnu/asm"),
    reason="no kernel headers (linux-libc-dev)",
)


@needs_headers
def test_what_is_checked_in_is_up_to_date() -> None:
    result = gen(ROOT, "--check")
    assert result.returncode == 0, result.stdout + result.stderr


@needs_headers
@pytest.mark.parametrize(
    ("module", "old", "new", "complaint"),
    [
        ("constants.py", "\nMS_BIND = 0x1000\n", "\nMS_BIND = 0x2000\n", "MS_BIND"),
        ("constants.py", "\nSYS_seccomp = 317\n", "\nSYS_seccomp = 318\n", "SYS_seccomp"),
        ("sysno.py", '"read": (0,', '"read": (1,', "system call read is 0, not 1"),
    ],
)
def test_a_value_that_was_touched_is_found(
    checkout: Path, module: str, old: str, new: str, complaint: str
) -> None:
    path = checkout / "minicontainer" / "kernel" / module
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    result = gen(checkout, "--check")
    assert result.returncode == 1
    assert complaint in result.stdout


@needs_headers
def test_a_machine_without_headers_is_named_and_kept_as_it_is(checkout: Path) -> None:
    script = checkout / "scripts" / "headers.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("s390x-linux-gnu", "nowhere"), encoding="utf-8")
    result = gen(checkout, "--check")
    assert result.returncode == 0, result.stdout
    assert "no kernel headers for" in result.stderr and "s390x" in result.stderr
    assert gen(checkout).returncode == 1  # to write, all are needed


@needs_headers
def test_the_machine_itself_is_never_left_out(checkout: Path) -> None:
    script = checkout / "scripts" / "headers.py"
    text = script.read_text(encoding="utf-8")
    for triplet in (f"{os.uname().machine}-linux-gnu", "powerpc64le-linux-gnu"):
        text = text.replace(triplet, "nowhere")
    script.write_text(text, encoding="utf-8")
    result = gen(checkout, "--check")
    assert result.returncode == 1
    assert "this machine" in result.stdout


def test_unknown_arguments_write_nothing(checkout: Path) -> None:
    path = checkout / "minicontainer" / "kernel" / "constants.py"
    before = path.read_bytes()
    assert gen(checkout, "--chekc").returncode == 2
    assert path.read_bytes() == before
