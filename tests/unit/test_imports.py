"""What a start imports, which is most of what it costs.

The list is pinned because milliseconds are not stable and a list is: who adds a module here has
looked at what it costs (`scripts/bench import`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runner import Engine

TOP = Path(__file__).resolve().parents[2]

# Each costs more than our own code does: together, several whole starts.
TOO_DEAR = {
    "argparse",
    "asyncio",
    "dataclasses",
    "enum",
    "json",
    "logging",
    "pathlib",
    "re",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tarfile",
    "tempfile",
    "threading",
    "typing",
    "urllib",
}

# What `run --rm --network none --rootfs DIR true` has loaded when it forks the container, beyond
# what the bare interpreter brings (and ctypes, whose parts differ between versions).
_LOADED = {
    "": ("errors jsontext paths steps tuples"),
    "cli": ("mounts options output process_options quantities roots run run_options values"),
    "engine": (
        "bundle bundle_limits bundle_mounts hostfiles names pipes records run "
        "surroundings task times"
    ),
    "kernel": ("acts constants decode libc mounting processes procfs signals sockets terminals"),
    "primitives": (
        "capabilities cgroup_files cgroup_layout cgroup_limits cgroup_processes cgroups "
        "commits credentials devices inroot mounts namespaces overlay rootfs sysctls"
    ),
    "runtime": ("children init lifecycle process state sync"),
}
PINNED = {"minicontainer"}.union(
    *(
        {".".join(filter(None, ("minicontainer", package, name))) for name in ["", *names.split()]}
        for package, names in _LOADED.items()
    )
)
# One or both of them, as the host has it.
OF_THE_HOST = {"minicontainer.primitives.cgroup_v1", "minicontainer.primitives.cgroup_v2"}

# Runs the program with the arguments after the name of a report, written at the first fork.
AT_THE_FORK = """
import os, posix, sys
report, before, fork = sys.argv.pop(1), set(sys.modules), posix.fork
def noted():
    if not os.path.exists(report):
        with open(report, "w") as file:
            print(*sorted(set(sys.modules) - before), file=file)
    return fork()
os.fork = posix.fork = noted
sys.path.insert(0, {top!r})
from minicontainer import cli
cli.main(["minicontainer", *sys.argv[1:]])
"""


def too_dear(modules: set[str]) -> set[str]:
    return {module for module in modules if module.partition(".")[0] in TOO_DEAR}


def loaded_by(statement: str) -> set[str]:
    """The modules that `statement` loads into a bare interpreter."""
    code = (
        f"import sys; sys.path.insert(0, {str(TOP)!r}); before = set(sys.modules); {statement}; "
        "print(*set(sys.modules) - before)"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return set(answer.stdout.split())


@pytest.mark.parametrize("verb", ["run", "exec", "ps", "create", "start"])
def test_verb_is_cheap_to_import(verb: str) -> None:
    from minicontainer import cli

    module = cli.VERBS[verb]
    assert not too_dear(loaded_by(f"import minicontainer.cli.{module}"))


def test_kernel_is_cheap_to_import() -> None:
    assert not too_dear(loaded_by("import minicontainer.kernel"))


def test_another_verb_is_not_imported() -> None:
    from minicontainer import cli

    others = {f"minicontainer.cli.{module}" for module in cli.VERBS.values()}
    loaded = loaded_by("import minicontainer.cli.run")
    assert loaded & others <= {"minicontainer.cli.run", "minicontainer.cli.create"}


@pytest.mark.root
def test_modules_loaded_when_the_container_is_forked(rootfs: str, engine: Engine) -> None:
    report = os.path.join(engine.base, "report")
    code = AT_THE_FORK.format(top=str(TOP))
    engine.command = [sys.executable, "-I", "-S", "-c", code, report]
    engine.ok("run", "--rm", "--network", "none", "--rootfs", rootfs, "/bin/true")
    with open(report, encoding="utf-8") as file:
        loaded = set(file.read().split())
    os.unlink(report)
    assert not too_dear(loaded)
    ours = {module for module in loaded if module.partition(".")[0] == "minicontainer"}
    assert ours - OF_THE_HOST == PINNED
