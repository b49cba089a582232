"""`--trace` against strace: what the kernel saw from us is what we say."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.support.runner import Engine

pytestmark = pytest.mark.root

# Calls with one name at the door and in the kernel.
COUNTED = """capset mount mount_setattr move_mount open_tree pivot_root setns sethostname umount2
    unshare""".split()
# Calls whose text is the same in both, but for blanks.
EXACT = ("pivot_root", "setns", "umount2", "unshare")


def told(path: Path, separator: str) -> list[str]:
    """The traced calls of a file, without who made them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    calls = [line.partition(separator)[2].strip() for line in lines]
    return [call for call in calls if call.partition("(")[0] in COUNTED]


def bare(calls: list[str]) -> Counter[str]:
    """The calls of one spelling with their results, without blanks and times."""
    chosen = [call for call in calls if call.startswith(EXACT)]
    return Counter(call.rpartition(" <")[0] or call for call in chosen)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("flags", [[], ["--user", "1000", "--read-only", "--ipc", "host"]])
def test_what_strace_sees_from_us_is_in_the_trace(
    engine: Engine, tmp_path: Path, flags: list[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run = ["run", "--rm", "--rootfs", engine.rootfs, *flags, "/bin/true"]
    strace = ["strace", "-f", "-o", str(theirs), "-e", f"trace={','.join(COUNTED)}"]
    command = [*strace, *engine.argv(f"--trace={ours}", *run)]
    subprocess.run(command, env=engine.env, check=True, timeout=60)
    mine = told(ours, "] ")
    # The container's own program, /bin/true, makes none of these.
    seen = told(theirs, " ")
    assert Counter(call.partition("(")[0] for call in mine) == Counter(
        call.partition("(")[0] for call in seen
    )
    assert {"mount", "pivot_root", "unshare", "setns", "sethostname", "capset"} <= {
        call.partition("(")[0] for call in seen
    }
    squeezed = Counter(" ".join(call.split()) for call in seen if call.startswith(EXACT))
    assert bare(mine) == squeezed


def test_every_line_says_who_did_what_and_for_how_long(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    engine.ok(f"--trace={path}", "run", "--rm", "--rootfs", engine.rootfs, "/bin/true")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith(("[engine ", "[init ", "[monitor ")) for line in lines)
    assert all(line.endswith(("us>", " = ?")) for line in lines)
    assert any(line.startswith("[init ") and "pivot_root" in line for line in lines)
    assert [line for line in lines if "] execve(" in line and '"/bin/true"' in line]


def test_explain_has_headings_and_reasons(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    arguments = ["--explain", f"--trace={path}", "run", "--rm", "--rootfs", engine.rootfs]
    engine.ok(*arguments, "/bin/true")
    text = path.read_text(encoding="utf-8")
    assert "▸ give the container its own root\n" in text
    assert text.count("why: swaps the root mount") == 1


def test_the_trace_does_not_reach_the_container(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    listing = ["/bin/sh", "-c", "ls /proc/self/fd"]
    arguments = [f"--trace={path}", "run", "--rm", "--rootfs", engine.rootfs]
    assert engine.ok(*arguments, *listing).split() == ["0", "1", "2", "3"]  # 3 is of ls itself
