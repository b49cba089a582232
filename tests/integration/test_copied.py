"""Hosts that refuse overlays: the root file system is copied, with one warning."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.runner import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def refused(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """An engine whose state lies on an overlay, which cannot hold another one's upper layer."""
    engine = make_engine()
    place = f"{engine.base}/overlay"
    for name in ("lower", "upper", "work", "merged"):
        os.makedirs(f"{place}/{name}")
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, f"{place}/merged"], check=True
    )
    engine.root = f"{place}/merged/lib"
    try:
        yield engine
        engine.run("rm", "--all", "--force")
    finally:
        subprocess.run(["umount", f"{place}/merged"], check=True)


def test_the_copy_is_announced_once_and_kept(refused: Engine) -> None:
    done = refused.run(
        "run", "--name", "c", "--rootfs", refused.rootfs, "sh", "-c", "echo new > /f; hostname"
    )
    assert (done.returncode, done.stdout) == (0, "minicontainer\n")
    warnings = done.stderr.splitlines()
    assert len(warnings) == 1 and warnings[0].startswith("Warning: no overlay here"), warnings
    again = refused.run("start", "-a", "c")
    assert (again.returncode, again.stderr) == (0, "")
    assert not Path(refused.rootfs, "f").exists()


def test_what_looks_into_containers_looks_into_the_copy(refused: Engine, tmp_path: Path) -> None:
    refused.run("run", "--name", "c", "--rootfs", refused.rootfs, "sh", "-c", "echo new > /f")
    refused.ok("cp", "c:/f", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "new\n"
    assert "A /f" in refused.ok("diff", "c").splitlines()
    refused.ok("rm", "c")
    assert os.listdir(f"{refused.root}/containers") == []


def test_a_copied_root_keeps_owners_modes_and_links(refused: Engine) -> None:
    script = "stat -c '%n %u %g %a %h' /bin/sh /tmp /etc/passwd; readlink /bin/sh || true"
    copied = refused.run("run", "--rm", "--rootfs", refused.rootfs, "sh", "-c", script).stdout
    plain = subprocess.run(
        ["chroot", refused.rootfs, "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert copied == plain
