"""Fixtures: `rootfs`, `engine`, `make_engine`, `user_engine`; and what the markers mean."""

from __future__ import annotations

import os
import shutil
import tempfile

import hypothesis
import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.runner import Engine, scratch
from tests.support.users import UserEngine, scratch_is_open

# Time on a shared machine says nothing: speed is what scripts/bench is for.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Generator, Iterator


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`root` tests are skipped for others; `slow` ones run only when MC_FULL is set."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and not os.environ.get("MC_FULL"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Hostile inputs of megabytes do not belong into a test's name."""
    if isinstance(val, (str, bytes)) and len(val) > 100:
        return f"{argname}-of-{len(val)}"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures see whether the test itself failed."""
    report = yield
    if report.when == "setup":
        item.stash[failed] = False  # also when it is tried again
    if report.when == "call" and report.failed:
        item.stash[failed] = True
    return report


failed = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def rootfs() -> Iterator[str]:
    """A tiny root filesystem that all tests share; nobody may write to it."""
    base = tempfile.mkdtemp(prefix="mc-rootfs-", dir=scratch())
    os.chmod(base, 0o755)
    try:
        yield rootfs_builder.build(os.path.join(base, "rootfs"))
    finally:
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def shared_engine(rootfs: str) -> Iterator[Engine]:
    """One engine for all tests of a module, for those that only look at what it runs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = Engine(rootfs)
    yield engine
    left = engine.close()
    if left:
        pytest.fail("left behind after rm --all --force:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def make_engine(rootfs: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Engine]]:
    """A function that makes engines; what any of them leaves behind fails the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engines: list[Engine] = []

    def make(kind: type[Engine] = Engine, **options: object) -> Engine:
        engines.append(kind(rootfs, **options))  # type: ignore[arg-type]
        return engines[-1]

    yield make
    left = [line for engine in reversed(engines) for line in engine.close()]
    # A test that failed half-way has said enough; its leftovers were removed by force.
    if left and not request.node.stash.get(failed, False):
        pytest.fail("left behind after rm --all --force:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """A fresh engine with private state directories."""
    return make_engine()


@pytest.fixture
def user_engine(make_engine: Callable[..., Engine]) -> UserEngine:
    """A fresh engine run by an ordinary user without subordinate ids."""
    if not scratch_is_open():
        pytest.skip("the scratch directory is closed to other users")
    made = make_engine(UserEngine)
    assert isinstance(made, UserEngine)
    return made
