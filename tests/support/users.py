"""Commands as an ordinary user who exists only for them.

The user's name, home and (if wanted) range of subordinate ids are bind-mounted over /etc/passwd,
/etc/group, /etc/subuid and /etc/subgid in a private mount namespace: the host's own files are never
touched, and setuid helpers such as newuidmap see what the command sees.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile

from tests.support.runner import TOP, Engine, scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence

UID = 31415
NAME = "mctester"
RANGE = "700000:65536"

# $1 the directory of files, then the command
SCRIPT = """
set -e
for name in passwd group subuid subgid; do
    [ ! -e "/etc/$name" ] || mount --bind "$1/$name" "/etc/$name"
done
shift
exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all -- "$@"
"""


def readable_by_all(path: str) -> bool:
    """Whether each directory down to `path` lets others pass, and `path` lets them read."""
    path = os.path.realpath(path)
    if not os.stat(path).st_mode & 0o4:
        return False
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o1:
            return False
    return True


@functools.cache
def python_for_all() -> str:
    """An interpreter that every user may run; raises FileNotFoundError if there is none."""
    answer = subprocess.run(
        [sys.executable, os.path.join(TOP, "scripts", "pythons")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [line.split(" ", 1)[1] for line in answer.stdout.splitlines()]
    for path in [sys.executable, *reversed(found), "/usr/bin/python3"]:
        if os.path.exists(path) and readable_by_all(path):
            return path
    raise FileNotFoundError("no Python that an ordinary user may run")


@functools.cache
def library_for_all() -> str:
    """A directory with a compiled copy of the package that every user may read."""
    library = tempfile.mkdtemp(prefix="mc-library-", dir=scratch())
    atexit.register(shutil.rmtree, library)
    package = os.path.join(library, "minicontainer")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(os.path.join(TOP, "minicontainer"), package, ignore=ignored)
    compile_all = [python_for_all(), "-m", "compileall", "-q", package]
    subprocess.run(compile_all, check=True)
    subprocess.run(["chmod", "-R", "a+rX", library], check=True)
    return library


class User:
    """An ordinary user with a home; `subids` gives the range for newuidmap."""

    def __init__(self, base: str, *, subids: bool) -> None:
        self.base = base
        self.home = os.path.join(base, "home")
        self.runtime = os.path.join(base, "runtime")
        for directory in (self.home, self.runtime):
            os.mkdir(directory, 0o700)
            os.chown(directory, UID, UID)
        line = f"{NAME}:{RANGE}\n" if subids else ""
        for name, text in (
            ("passwd", f"root:x:0:0::/root:/bin/sh\n{NAME}:x:{UID}:{UID}::{self.home}:/bin/sh\n"),
            ("group", f"root:x:0:\n{NAME}:x:{UID}:\n"),
            ("subuid", line),
            ("subgid", line),
        ):
            with open(os.path.join(base, name), "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(file.name, 0o644)

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOME": self.home,
            "USER": NAME,
            "LOGNAME": NAME,
            "XDG_RUNTIME_DIR": self.runtime,
        }

    def argv(self, command: Sequence[str]) -> list[str]:
        """`command` as run by root, to be run by the user."""
        script = SCRIPT.format(uid=UID)
        inner = ["sh", "-c", script, "sh", self.base, *command]
        return ["unshare", "--mount", "--propagation", "private", *inner]


class UserEngine(Engine):
    """An engine that an ordinary user runs, from a copy of the package that he can read.

    With `default_roots` the state directories are those of the XDG variables, not `--root`.
    """

    def __init__(self, rootfs: str, *, subids: bool = False, default_roots: bool = False) -> None:
        super().__init__(rootfs, command=["unset"], owner=UID)
        self.user = User(self._directory("user"), subids=subids)
        self.command = [python_for_all(), "-m", "minicontainer"]
        self.env.update(self.user.env)
        self.env["PYTHONPATH"] = library_for_all()
        self.default_roots = default_roots
        if default_roots:
            self.root = os.path.join(self.user.home, ".local/share/minicontainer")
            self.runroot = os.path.join(self.user.runtime, "minicontainer")

    def _directory(self, name: str) -> str:
        path = os.path.join(self.base, name)
        os.mkdir(path, 0o755)
        return path

    def argv(self, *arguments: str) -> list[str]:
        command = super().argv(*arguments)
        if self.default_roots:
            command = [*self.command, *arguments]
        return self.user.argv(command)


def scratch_is_open() -> bool:
    """Whether an ordinary user can reach the directory of the tests."""
    return readable_by_all(scratch())
