"""The walls of the house, read from the syntax tree: who may import whom, and what nobody may do.

A rule that has exceptions lists them here, each with its reason.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, Iterator

    Complaints = Iterable[tuple[int, str]]  # (line, what)
    Rule = Callable[[str], Complaints]

PACKAGE = Path(__file__).resolve().parents[2] / "minicontainer"

# The modules at the top are level 0: errors, steps, paths and their like, which anybody may use.
LEVELS = {
    "kernel": 1,
    "primitives": 2,
    "runtime": 3,
    "image": 3,
    "engine": 4,
    "cli": 5,
    "__main__": 6,
}

# (importer, imported): why.
UPWARD = {
    ("trace", "kernel"): "the listener rebinds the door's names; imported only when asked for",
}

LARGEST = 600
EMPTY_NAMES = ("utils", "common", "config", "helpers", "misc")

# os._exit is for forked children, so for modules that fork, and for these that are handed a child
# (or never return from execveat).
ENDS_THE_PROCESS = ("runtime.init", "runtime.stage", "engine.monitor", "kernel.processes")

# The homes of the caller, where HOME is unset, and of who called sudo.
HOST_DATABASES = ("cli.roots", "engine.images")


def source_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("."))


def module_of(path: Path) -> str:
    """`runtime.init` for minicontainer/runtime/init.py, `kernel` for its __init__.py."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


MODULES = {module_of(path): path for path in source_files()}
TREES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in MODULES.items()}


def is_for_checkers(node: ast.AST) -> bool:
    """Whether `node` is `if TYPE_CHECKING:`, which never runs."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run."""
    for node in ast.iter_child_nodes(tree):
        if is_for_checkers(node):
            assert isinstance(node, ast.If)
            for other in node.orelse:
                yield other
                yield from walk(other)
            continue
        yield node
        yield from walk(node)


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The full name of what `from X` names, relative or not."""
    if not node.level:
        return node.module or ""
    base = ["minicontainer", *module.split(".")] if module else ["minicontainer"]
    if MODULES[module].name != "__init__.py":
        base.pop()
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def imports(module: str) -> Iterator[tuple[str, int]]:
    """(full name, line) of each module that `module` imports when it runs, at whatever moment."""
    for node in walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(module, node)
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                inside = name.startswith("minicontainer.") and name[14:] in MODULES
                yield (name if inside else origin), node.lineno


def package(module: str) -> str:
    return module.partition(".")[0]


def ours(name: str) -> str | None:
    """`kernel.netlink` for minicontainer.kernel.netlink; None for what is not ours."""
    if name == "minicontainer":
        return ""
    return name[14:] if name.startswith("minicontainer.") else None


def dotted(node: ast.AST) -> str:
    """`os.path.join` for such an expression; empty for others."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def calls(module: str) -> Iterator[ast.Call]:
    return (node for node in walk(TREES[module]) if isinstance(node, ast.Call))


def complain(rule: Rule, skip: tuple[str, ...] = ()) -> None:
    """Fail with every complaint of `rule` about a module outside the packages `skip`."""
    found = [
        f"{MODULES[module].relative_to(PACKAGE.parent)}:{line}: {text}"
        for module in sorted(MODULES)
        if package(module) not in skip
        for line, text in rule(module)
    ]
    assert not found, "\n  ".join(["", *found])


def level(module: str) -> int:
    return LEVELS.get(package(module), 0)


def test_every_package_has_a_level() -> None:
    unknown = {package(module) for module in MODULES if "." in module} - set(LEVELS)
    assert not unknown, f"which level is this? {unknown}"


def test_imports_go_downward() -> None:
    def rule(module: str) -> Complaints:
        here = package(module)
        for name, line in imports(module):
            target = ours(name)
            if target is None or package(target) == here or (here, package(target)) in UPWARD:
                continue
            both_at_the_bottom = level(module) == level(target) == 0
            if level(target) >= level(module) and not both_at_the_bottom:
                yield line, f"level {level(module)} imports {name}, level {level(target)}"

    complain(rule)


def test_cli_oci_stands_on_the_runtime_alone() -> None:
    def rule(module: str) -> Complaints:
        if module == "cli.oci":
            for name, line in imports(module):
                if package(ours(name) or "") in ("engine", "image"):
                    yield line, f"imports {name}"

    complain(rule)


@pytest.mark.parametrize(
    ("libraries", "allowed"),
    [
        (("ctypes", "_ctypes"), "kernel"),
        (("urllib", "http", "ssl"), "image.registry"),
    ],
    ids=["ctypes", "urllib"],
)
def test_library_stays_behind_its_door(libraries: tuple[str, ...], allowed: str) -> None:
    def rule(module: str) -> Complaints:
        if not f"{module}.".startswith(f"{allowed}."):
            for name, line in imports(module):
                if package(name) in libraries:
                    yield line, f"imports {name}, which is for {allowed}"

    complain(rule)


def test_only_the_standard_library_is_imported() -> None:
    known = getattr(sys, "stdlib_module_names", None)  # Python 3.10

    def rule(module: str) -> Complaints:
        for name, line in imports(module):
            if known and ours(name) is None and package(name) not in known:
                yield line, f"imports {name}"

    complain(rule)


def test_only_cli_prints_and_ends_the_process() -> None:
    def rule(module: str) -> Complaints:
        forbidden = ["print", "sys.exit", "exit", "quit", "SystemExit", "sys.stdout.write"]
        forks = any(dotted(call.func) == "kernel.fork" for call in calls(module))
        if not forks and module not in ENDS_THE_PROCESS:
            forbidden += ["os._exit", "kernel._exit"]
        for call in calls(module):
            if dotted(call.func) in forbidden:
                yield call.lineno, f"calls {dotted(call.func)}"
        for node in walk(TREES[module]):
            if isinstance(node, ast.Raise) and node.exc and dotted(node.exc) == "SystemExit":
                yield node.lineno, "raises SystemExit"

    complain(rule, skip=("cli", "__main__"))


def test_future_annotations_come_first() -> None:
    def rule(module: str) -> Complaints:
        body = [node for node in TREES[module].body if not isinstance(node, ast.Expr)]
        first = body[0] if body else None
        if first and not (isinstance(first, ast.ImportFrom) and first.module == "__future__"):
            yield first.lineno, "is not from __future__ import annotations"

    complain(rule, skip=("",))


def test_modules_say_what_they_are_for() -> None:
    complain(lambda module: [] if ast.get_docstring(TREES[module]) else [(1, "no docstring")])


def test_no_module_is_a_monster() -> None:
    def rule(module: str) -> Complaints:
        text = MODULES[module].read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > LARGEST and "scripts/gen" not in text[:500]:
            yield lines, f"more than {LARGEST} lines"

    complain(rule)


def test_modules_have_nouns_for_names() -> None:
    complain(lambda module: [(1, "says nothing")] if module.split(".")[-1] in EMPTY_NAMES else [])


def test_door_is_used_by_attribute() -> None:
    """`from minicontainer.kernel import mount` could be neither traced nor faked."""

    def rule(module: str) -> Complaints:
        for node in walk(TREES[module]):
            if (
                isinstance(node, ast.ImportFrom)
                and absolute(module, node) == "minicontainer.kernel"
            ):
                for alias in node.names:
                    if f"kernel.{alias.name}" not in MODULES:
                        yield node.lineno, f"binds kernel.{alias.name} too early"

    complain(rule, skip=("kernel", "trace"))


def test_no_shell_and_no_look_up_in_the_databases_of_the_host() -> None:
    def rule(module: str) -> Complaints:
        for name, line in imports(module):
            if name in ("pwd", "grp", "spwd") and module not in HOST_DATABASES:
                yield line, f"imports {name}"
        for call in calls(module):
            name = dotted(call.func)
            if name in ("os.system", "os.popen"):
                yield call.lineno, f"calls {name}"
            if any(keyword.arg == "shell" for keyword in call.keywords):
                yield call.lineno, "says shell="
            if name.rpartition(".")[2] in ("extractall", "extract", "extractfile"):
                yield call.lineno, "lets tarfile extract"

    complain(rule)


def test_no_socket_is_abstract() -> None:
    def rule(module: str) -> Complaints:
        for call in calls(module):
            if any(word in dotted(call.func) for word in ("connect", "bind", "listen")):
                for argument in call.args:
                    value = getattr(argument, "value", None)
                    if isinstance(value, (str, bytes)) and value[:1] in ("\0", b"\0"):
                        yield call.lineno, "an abstract socket"

    complain(rule)


def test_child_imports_nothing() -> None:
    def rule(module: str) -> Complaints:
        if module not in ("runtime.init", "runtime.stage"):
            return
        for node in walk(TREES[module]):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for inner in walk(node):
                    if isinstance(inner, (ast.Import, ast.ImportFrom)):
                        yield inner.lineno, f"an import after the fork, in {node.name}"

    complain(rule)


def test_types_are_for_checkers_only() -> None:
    """typing, dataclasses and enum each cost about as much as a whole start may."""

    def rule(module: str) -> Complaints:
        for name, line in imports(module):
            if name in ("typing", "typing_extensions", "dataclasses", "enum"):
                yield line, f"imports {name}"

    complain(rule)
