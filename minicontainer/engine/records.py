"""Containers on disk: made whole, found by name or id, their status computed from facts.

A container's directory is staged in tmp/, under a flock(2) on the directory itself, and appears in
containers/ by rename; a name is a symbolic link made before that, so that no name is given twice.
A name or a staging directory whose lock is free and which has no container is a dead maker's.
`run` puts the record on the disk only once the command runs: a directory whose container.json is
empty or missing is one that a crash of the host has overtaken, and no container (`exists`).
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer import jsontext, kernel
from minicontainer.engine import names, times
from minicontainer.errors import Conflict, Error, NotFound
from minicontainer.kernel import procfs
from minicontainer.paths import Paths
from minicontainer.primitives import commits
from minicontainer.runtime import state as facts
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

LAYOUT = "1"
SETTLE_SECONDS = 10.0
_DIRECTORIES = ("containers", "names", "tmp", "trash", "volumes")


class Container:
    """One container: what was asked for (`record`), what happened (`last`, `state`).

    `broken` is the reason why the record cannot be read, or None; such a container has only an id.
    """

    def __init__(self, paths: Paths, container_id: str) -> None:
        self.paths = paths
        self.id = container_id
        self.record: Record = {}
        self.last: Record = {}
        self.state: Record | None = None
        self.broken: str | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the facts again."""
        self.broken = None
        try:
            self.record = _read(self.paths.record(self.id)) or {}
            if not isinstance(self.record.get("options"), dict) or not self.record.get("name"):
                raise Error("its record is incomplete")
            self.last = _read(self.paths.last(self.id)) or {}
            self.state = facts.load(self.paths.run(self.id))
        except Error as failure:
            self.broken = str(failure)

    @property
    def name(self) -> str:
        return str(self.record.get("name", ""))

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.record.get("options", {})
        return options

    @property
    def lower(self) -> list[str]:
        """The directories below its upper layer, topmost first."""
        return list(self.record.get("lower") or ())

    @property
    def running(self) -> bool:
        """Whether the container's first process is alive."""
        return facts.is_alive(self.state)

    @property
    def monitored(self) -> bool:
        """Whether its monitor is alive."""
        return facts.is_alive(self.state, "monitor_")

    @property
    def restarting(self) -> bool:
        """Whether its monitor waits to start it again."""
        return self.monitored and not self.running and bool((self.state or {}).get("restarting"))

    @property
    def ending(self) -> bool:
        """Whether its first process is gone, and its monitor is about to say what follows."""
        if self.running or self.restarting or not self.monitored or not self.state:
            return False
        # --rm keeps no record of the start; without one the start itself has failed.
        if self.options.get("rm"):
            return True
        return bool(self.last.get("started_at") == self.state.get("started_at", ""))

    def settle(self) -> None:
        """Wait while its monitor takes down a run that has ended: milliseconds, 10 s at most."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.monitored and not self.running and not self.restarting:
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)
            self.refresh()

    @property
    def pid(self) -> int:
        """The first process as the host numbers it, 0 when it does not run."""
        return int(self.state["pid"]) if self.state and self.running else 0

    @property
    def status(self) -> str:
        """created, running, paused, restarting, exited or broken."""
        if self.broken:
            return "broken"
        self._look_again()
        if self.running:
            if os.path.exists(f"{self.paths.run(self.id)}/exec.fifo"):
                return "created"
            return "paused" if self._frozen() else "running"
        if self.restarting:
            return "restarting"
        if self.ending:
            return "running"
        return "exited" if self.last or self.state else "created"

    def _look_again(self) -> None:
        """Read the facts once more where a restart came between reading one and the other."""
        for _ in range(3):
            settled = self.running or self.restarting or self.ending
            if settled or not self.monitored or self.broken:
                return
            self.refresh()

    @property
    def exit_code(self) -> int:
        """How it last ended; 255 when nobody saw it, 0 while it runs or before it ever did."""
        if self.running or self.ending or not (self.last or self.state):
            return 0
        return int(self.last.get("exit_code", 255)) if self.last.get("finished_at") else 255

    @property
    def error(self) -> str:
        """Why its last start failed or its end was not seen; empty when all is well."""
        if self.running or self.ending:
            return ""
        if self.last and not self.last.get("finished_at"):
            if self.last.get("boot_id") != procfs.boot_id():
                return "the host was restarted while it ran"
            return "its monitor was killed; the exit code is not known"
        return str(self.last.get("error", ""))

    def signal(self, number: int) -> bool:
        """Send a signal to its first process; False when that is gone."""
        self.state = facts.load(self.paths.run(self.id))
        return self.state is not None and facts.signal(self.state, number)

    def write_last(self, *, durable: bool = True, **changed: Any) -> None:
        """Replace last.json with the present facts and `changed`."""
        self.last = {**self.last, **changed}
        write(self.paths.last(self.id), self.last, durable=durable)

    def group(self) -> Any:
        """The cgroup of the running container, or None where there is none."""
        from minicontainer.primitives import cgroups

        if not self.state or not self.state.get("cgroup"):
            return None
        if not _layout:  # the same for all that a command lists
            _layout.append(cgroups.detect())
        if _layout[0].mode == "none":
            return None
        return cgroups.open_group(_layout[0], self.state["cgroup"])

    def _frozen(self) -> bool:
        group = self.group()
        return group is not None and bool(group.frozen())


_layout: list[Any] = []


def prepare(paths: Paths) -> None:
    """Make the two roots where they are missing; refuse what another program or version wrote."""
    try:
        with open(paths.version, errors="backslashreplace") as file:
            found = file.read(64).strip()
    except FileNotFoundError:
        _lay_out(paths)
        return
    except OSError as failure:
        with step("open the state directory %s", paths.root):
            raise failure
    if found != LAYOUT:
        raise Error(
            f"{paths.root} has layout version {found!r}, and this program knows only {LAYOUT}",
            hint="use the program that made it, or another --root",
        )
    if not os.path.isdir(paths.running):
        with step("make %s", paths.runroot):
            os.makedirs(paths.running, 0o711, exist_ok=True)


def _lay_out(paths: Paths) -> None:
    with step("make the state directory %s", paths.root):
        os.makedirs(paths.root, 0o711, exist_ok=True)
        strange = [name for name in os.listdir(paths.root) if not _adoptable(paths.root, name)]
        if strange:
            raise Error(
                f"{paths.root} holds something else ({sorted(strange)[0]})",
                hint="name another directory with --root or MINICONTAINER_ROOT",
            )
        for name in _DIRECTORIES:
            os.makedirs(f"{paths.root}/{name}", 0o711, exist_ok=True)
        os.makedirs(paths.running, 0o711, exist_ok=True)
        # In tmp/ first: should we die here, that is where prune looks.
        staged = f"{paths.tmp}/version-{os.getpid()}"
        commits.replace(staged, LAYOUT + "\n", durable=True)
        kernel.rename(staged, paths.version)
        commits.sync(paths.root)


def _adoptable(root: str, name: str) -> bool:
    """Ours, half-made by another process, an empty directory, or what mkfs puts there."""
    if name in _DIRECTORIES or name.startswith("version") or name == "lost+found":
        return True
    path = f"{root}/{name}"
    return os.path.isdir(path) and not os.listdir(path)


def new_id() -> str:
    """A fresh container id: 64 hexadecimal digits, the first twelve not all decimal."""
    while True:
        found = os.urandom(32).hex()
        if not found[:12].isdigit():
            return found


def stage(paths: Paths, container_id: str) -> int:
    """Make tmp/<id>, locked for as long as the returned descriptor lives."""
    directory = f"{paths.tmp}/{container_id}"
    kernel.mkdir(directory, 0o711)
    fd = kernel.open(directory, kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
    kernel.flock(fd, kernel.LOCK_EX)
    return fd


def claim_name(paths: Paths, name: str | None, container_id: str) -> str:
    """Give `name`, or one that we draw, to the container. Raises Conflict when it is taken."""
    for attempt in range(1000):
        candidate = name or names.draw(attempt)
        try:
            kernel.symlink(container_id, paths.name(candidate))
            return candidate
        except FileExistsError:
            holder = os.readlink(paths.name(candidate))
            if not _name_is_held(paths, candidate, holder):
                _release(paths, candidate, holder)
            elif name:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container '
                    f'"{holder}"',
                    hint="remove or rename that container, or choose another name",
                ) from None
    raise Conflict("no free name was found")


def _name_is_held(paths: Paths, name: str, holder: str) -> bool:
    if exists(paths, holder):
        return True
    try:
        fd = kernel.open(f"{paths.tmp}/{holder}", kernel.O_RDONLY | kernel.O_CLOEXEC)
    except FileNotFoundError:
        # Its maker renamed it into place just now, or died before it made anything.
        return exists(paths, holder)
    try:
        kernel.flock(fd, kernel.LOCK_EX | kernel.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        kernel.close(fd)
    return exists(paths, holder)


def _release(paths: Paths, name: str, holder: str) -> None:
    """Remove a name, unless it has become somebody else's: the rename decides who removes."""
    aside = f"{paths.tmp}/name-{os.getpid()}-{name}"
    try:
        kernel.rename(paths.name(name), aside)
    except FileNotFoundError:
        return
    if os.readlink(aside) != holder:
        try:
            kernel.link(aside, paths.name(name), follow_symlinks=False)
        except FileExistsError:
            pass
    kernel.unlink(aside)


def release_name(paths: Paths, name: str, container_id: str) -> None:
    """Give the name back if it is the container's; may be repeated.

    No name: whichever it has; a broken container does not know its own.
    """
    name = name or _name_of(paths, container_id)
    try:
        if name and os.readlink(paths.name(name)) == container_id:
            _release(paths, name, container_id)
    except FileNotFoundError:
        pass


def present_name(paths: Paths, record: Record) -> str:
    """The container's name: that of a record read long ago, unless it was renamed since."""
    name = str(record["name"])
    if _is_held_by(paths, name, record["id"]):
        return name
    return _name_of(paths, record["id"]) or name


def _name_of(paths: Paths, container_id: str) -> str:
    """The name that leads to the container, empty if none does."""
    found = (name for name in os.listdir(paths.names) if _is_held_by(paths, name, container_id))
    return next(found, "")


def _is_held_by(paths: Paths, name: str, container_id: str) -> bool:
    try:
        return os.readlink(paths.name(name)) == container_id
    except OSError:
        return False


def find(paths: Paths, reference: str) -> Container:
    """The container of a full id, an exact name or a unique id prefix.

    Raises NotFound, or Error when the prefix fits several.
    """
    if len(reference) == 64 and exists(paths, reference):
        return Container(paths, reference)
    plain = reference[1:] if reference.startswith("/") else reference
    if plain and "/" not in plain and plain not in (".", ".."):
        try:
            holder = os.readlink(paths.name(plain))
            if exists(paths, holder):
                return Container(paths, holder)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise
    fitting = [found for found in ids(paths) if plain and found.startswith(plain)]
    if len(fitting) > 1:
        raise Error(
            f"{reference} is the beginning of several container ids",
            hint="give more digits: " + " ".join(found[:12] for found in sorted(fitting)[:4]),
        )
    if not fitting:
        raise NotFound(f"No such container: {reference}")
    return Container(paths, fitting[0])


def ids(paths: Paths) -> list[str]:
    """The ids of all containers there are."""
    try:
        found = os.listdir(paths.containers)
    except FileNotFoundError:
        return []
    return [name for name in found if len(name) == 64 and exists(paths, name)]


def exists(paths: Paths, container_id: str) -> bool:
    """Whether there is a container of this id, be it a broken one."""
    try:
        return os.stat(paths.record(container_id)).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def load_all(paths: Paths) -> list[Container]:
    """Every container, newest first; one that vanishes meanwhile is left out."""
    found = [Container(paths, container_id) for container_id in ids(paths)]
    found = [one for one in found if exists(paths, one.id)]
    return sorted(found, key=lambda one: str(one.record.get("created", "")), reverse=True)


def config(container: Container) -> dict[str, Any]:
    """The container's OCI configuration, as we wrote it. Raises Error when it is damaged."""
    found = _read(container.paths.config(container.id))
    if found is None:
        raise NotFound(f"No such container: {container.name}")
    return found


def write(path: str, value: Record, *, durable: bool = True) -> None:
    """Replace the JSON file `path` whole, on the disk before this returns if durable."""
    commits.replace(path, jsontext.dumps(value, indent=2) + "\n", durable=durable)


def lock(container: Container) -> int:
    """Lock the container until the returned descriptor is closed.

    The lock is on its directory; if that was removed meanwhile, NotFound.
    """
    path = container.paths.container(container.id)
    try:
        fd = kernel.open(path, kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"No such container: {container.id[:12]}") from None
    kernel.flock(fd, kernel.LOCK_EX)
    try:
        if os.fstat(fd).st_ino == os.stat(path).st_ino:
            container.refresh()
            return fd
    except FileNotFoundError:
        pass
    kernel.close(fd)
    raise NotFound(f"No such container: {container.id[:12]}")


def created_record(
    container_id: str, name: str, options: dict[str, Any], base: dict[str, Any]
) -> Record:
    """container.json of a new container.

    base: what it stands on: `lower`, the directories below its upper layer, topmost first, and for
    an image `image_id` and `layers`, the diffIDs that must not be removed meanwhile.
    """
    return {
        "version": 1,
        "id": container_id,
        "name": name,
        "created": times.now(),
        "image": options.get("image") or "",
        "options": options,
        **base,
    }


def _read(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:
            value = jsontext.loads(file.read(16 << 20))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as failure:
        raise Error(f"{os.path.basename(path)} cannot be read: {failure}") from None
    if not isinstance(value, dict):
        raise Error(f"{os.path.basename(path)} holds no object")
    return value
