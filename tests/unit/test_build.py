"""The one-file build: the same bytes each time, and the same program on every Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TOP = Path(__file__).resolve().parents[2]
SHELL = "/bin/sh"

# A program that tells what it was started with.
TELL = """\
import sys

from minicontainer.cli import inner


def main(argv):
    print(sys.version_info[:2], sys.flags.isolated, sys.flags.no_site, sys.flags.utf8_mode)
    print(argv[0])
    print(argv[1:])
    print(__file__, inner.__file__)
    if "fail" in argv:
        inner.fail()
    if "noctypes" in argv:
        raise ImportError("No module named '_ctypes'", name="_ctypes")
    if "descriptors" in argv:
        import fcntl
        import os

        for number in range(3, 256):
            try:
                print(number, bool(fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC))
            except OSError:
                pass
    if "delete" in argv:
        import os

        os.unlink(argv[0])
        from minicontainer import late

        print(late.WORD)
"""


def found_pythons() -> list[str]:
    """The interpreters of this machine, oldest first."""
    answer = subprocess.run(
        [sys.executable, str(TOP / "scripts/pythons")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [line.split(" ", 1)[1] for line in answer.stdout.splitlines()]


PYTHONS = found_pythons()


def build(target: Path, *options: str, env: dict[str, str] | None = None, cwd: str = "/") -> Path:
    subprocess.run(
        [sys.executable, str(TOP / "scripts/build"), "-o", str(target), *options],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        check=True,
    )
    return target


def start(program: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MINICONTAINER_PYTHON": sys.executable}
    environment.update(more.pop("env", {}))
    return subprocess.run(
        [str(program), *arguments], env=environment, capture_output=True, text=True, **more
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the same name that only tells how it was started."""
    top = tmp_path_factory.mktemp("source")
    (top / "minicontainer/cli").mkdir(parents=True)
    (top / "minicontainer/__init__.py").write_text('__version__ = "0.0.7"\n')
    (top / "minicontainer/late.py").write_text('WORD = "found"\nNAMES = {"a", "b", "c", "d"}\n')
    (top / "minicontainer/cli/__init__.py").write_text(TELL)
    (top / "minicontainer/cli/inner.py").write_text("def fail():\n    return 1 / 0  # here\n")
    return top


@pytest.fixture(scope="module")
def teller(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("teller") / "tell", "--source", str(source))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("program") / "minicontainer")


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """In two places, by two Pythons, in two environments."""
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("minicontainer", "scripts"):
        shutil.copytree(TOP / name, first / name, ignore=unwanted)
    shutil.copytree(first, second)
    for checkout, python, env, umask in (
        (first, PYTHONS[-1], {}, 0o022),
        (second, PYTHONS[0], {"LC_ALL": "C", "TZ": "Asia/Tokyo", "USER": "x" * 50}, 0o077),
    ):
        subprocess.run(
            [python, str(checkout / "scripts/build")],
            env={"PATH": os.environ["PATH"], "HOME": os.path.expanduser("~"), **env},
            cwd=tmp_path,
            umask=umask,
            stdout=subprocess.PIPE,
            check=True,
        )
    built = [checkout / "dist/minicontainer.pyz" for checkout in (first, second)]
    assert built[0].read_bytes() == built[1].read_bytes()
    assert [path.stat().st_mode & 0o777 for path in built] == [0o755, 0o755]


def test_build_takes_its_time_from_the_environment(tmp_path: Path, source: Path) -> None:
    options = ("--source", str(source), "--python", sys.executable)
    made = build(tmp_path / "a", *options, env={"SOURCE_DATE_EPOCH": "1700000000"})
    with zipfile.ZipFile(made) as archive:
        assert {member.date_time for member in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {member.external_attr >> 16 for member in archive.infolist()} == {0o100644}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_runs_its_own_bytecode(teller: Path, python: str) -> None:
    done = start(teller, "a b", "", "$x", env={"MINICONTAINER_PYTHON": python})
    lines = done.stdout.splitlines()
    assert done.stderr == "" and done.returncode == 0
    assert lines[0].endswith("1 1 1")
    assert lines[1:3] == [str(teller), "['a b', '', '$x']"]
    assert lines[3] == (
        f"{teller}/minicontainer/cli/__init__.py {teller}/minicontainer/cli/inner.py"
    )


@pytest.mark.parametrize("python", [PYTHONS[0], PYTHONS[-1]])
def test_python_without_a_tree_runs_the_source(tmp_path: Path, source: Path, python: str) -> None:
    other = next((one for one in PYTHONS if one != python), None)
    trees = ("--python", other) if other else ("--python", python)
    made = build(tmp_path / "tell", "--source", str(source), *trees)
    done = start(made, env={"MINICONTAINER_PYTHON": python})
    assert done.stdout.splitlines()[1] == str(made)
    plain = subprocess.run([python, str(made), "x"], capture_output=True, text=True, check=True)
    assert plain.stdout.splitlines()[1:3] == [str(made), "['x']"]


def test_name_it_was_called_by_is_kept(teller: Path, tmp_path: Path) -> None:
    link = tmp_path / "minicontainer-oci"
    link.symlink_to(teller)
    assert start(link).stdout.splitlines()[1] == str(link)
    beside = subprocess.run(
        [SHELL, "-c", "exec minicontainer-oci"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert os.path.basename(beside.stdout.splitlines()[1]) == "minicontainer-oci"
    relative = subprocess.run(
        ["./minicontainer-oci"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    assert relative.stdout.splitlines()[1] == f"{tmp_path}/./minicontainer-oci"


def test_no_descriptor_is_where_a_caller_might_pass_one(teller: Path) -> None:
    done = start(teller, "descriptors", close_fds=True)
    assert done.stdout.splitlines()[4:] == ["200 True"]


def test_program_may_be_deleted_while_it_runs(teller: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(teller, copy)
    assert start(copy, "delete").stdout.splitlines()[-1] == "found"


def test_traceback_names_the_module_and_no_path_of_the_builder(teller: Path) -> None:
    done = start(teller, "fail")
    assert done.returncode == 1
    assert "minicontainer.pyz/minicontainer/cli/inner.py" in done.stderr
    assert "ZeroDivisionError" in done.stderr and str(TOP) not in done.stderr


def test_missing_ctypes_is_one_line(teller: Path) -> None:
    done = start(teller, "noctypes")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "no ctypes module: install the full package python3" in done.stderr


def test_python_that_is_too_old_hands_over(teller: Path, tmp_path: Path) -> None:
    """A stand-in says it is 3.8 by refusing the check; the header must ask the next one."""
    names = tmp_path / "bin"
    names.mkdir()
    (names / "python3.14").write_text("#!/bin/sh\nexit 1\n")
    (names / "python3.14").chmod(0o755)
    (names / "python3.13").symlink_to(sys.executable)
    env = {"MINICONTAINER_PYTHON": "newer", "PATH": f"{names}:{os.environ['PATH']}"}
    done = start(teller, "x", env=env)
    assert done.stderr == "" and done.stdout.splitlines()[2] == "['x']"


def old_python() -> str | None:
    for directory in {os.path.dirname(os.path.dirname(os.path.dirname(one))) for one in PYTHONS}:
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name, "bin", "python3")
            if name.startswith(("3.6", "3.7", "3.8")) and os.path.exists(path):
                return path
    return None


def test_header_parses_on_any_python(teller: Path) -> None:
    """What an old interpreter must parse holds no syntax younger than 2.7."""
    text = teller.read_bytes().split(b"code='", 1)[1].split(b"'\n", 1)[0].decode()
    assert 'f"' not in text and ":=" not in text and "async" not in text
    old = old_python()
    if old:
        done = start(teller, "y", env={"MINICONTAINER_PYTHON": old})
        assert done.stdout.splitlines()[2] == "['y']", done.stderr


def test_nothing_is_read_from_the_environment_or_the_working_directory(
    teller: Path, tmp_path: Path
) -> None:
    (tmp_path / "marshal.py").write_text("raise SystemExit('read from the working directory')")
    (tmp_path / "minicontainer.py").write_text("raise SystemExit('the same')")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('site ran')")
    done = start(teller, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"})
    assert (done.returncode, done.stderr) == (0, "")


def test_working_directory_may_be_gone(teller: Path, tmp_path: Path) -> None:
    script = f"mkdir gone; cd gone; rmdir ../gone; exec {teller} z"
    done = subprocess.run([SHELL, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[2] == "['z']"


def test_no_python_at_all_is_one_line(teller: Path, tmp_path: Path) -> None:
    """The header without its first candidate, which this machine does have."""
    header, rest = teller.read_bytes().split(b"for python in", 1)
    bare = tmp_path / "bare"
    bare.write_bytes(header + b"for python in" + rest.replace(b"/usr/bin/python3 ", b"", 1))
    bare.chmod(0o755)
    done = subprocess.run(
        [SHELL, str(bare)], env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert done.returncode == 125
    assert done.stderr.startswith(
        "Error: Python 3.9 or later is needed: install the package python3"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("python", PYTHONS)
def test_version_is_the_same_from_the_file_and_from_the_checkout(
    program: Path, python: str
) -> None:
    packed = start(program, "version", env={"MINICONTAINER_PYTHON": python})
    plain = subprocess.run(
        [python, "-m", "minicontainer", "version"], cwd=TOP, capture_output=True, text=True
    )
    assert (packed.returncode, packed.stderr) == (0, "")
    assert packed.stdout == plain.stdout
    assert packed.stdout.startswith("minicontainer version ")
