"""One run of a container, from its resources to the facts it leaves: what a monitor supervises."""

from __future__ import annotations

import errno
import os

from minicontainer import kernel, steps
from minicontainer.engine import hostfiles, records, surroundings, times
from minicontainer.errors import Error, KernelError, SnapshotError, UsageError
from minicontainer.kernel import procfs
from minicontainer.paths import Paths
from minicontainer.primitives import cgroups, commits, overlay
from minicontainer.runtime import init, lifecycle
from minicontainer.runtime import state as facts
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Task:
    """A container about to run, with its configuration in memory.

    lock_fd: holds the container's lock until it has started (-1: none); it is closed then.
    """

    def __init__(
        self, paths: Paths, record: dict[str, Any], config: dict[str, Any], lock_fd: int = -1
    ) -> None:
        self.paths = paths
        self.id: str = record["id"]
        self.record = record
        self.options: dict[str, Any] = record["options"]
        self.config = config
        self.lock_fd = lock_fd
        self.private_fds: list[int] = []  # the monitor's own, closed first thing in the child
        self.group: cgroups.Group | None = None
        self.made_sources: list[str] = []  # directories of the host that -v had us make
        self.started_at = ""
        self.restarts = 0
        self.running_dir = paths.run(self.id)
        self.creation: lifecycle.Creation | None = None
        self.layout: cgroups.Layout | None = None  # what `detect` said a moment ago, if it did
        self.settled = True  # whether its record is on the disk, or need not be

    # ---------------------------------------------------------- what the monitor calls

    def prepare(self) -> None:
        """Make the volatile directory, where the monitor listens, without marks of an older run."""
        with step("make %s", self.running_dir):
            try:
                kernel.mkdir(self.running_dir, 0o700)
            except FileExistsError:
                # A mark made while it waits for its restart is meant for us.
                stale = ("exit",) if self.restarts else ("stop", "exit", "policy", "state.json")
                for name in stale:
                    _unlink(f"{self.running_dir}/{name}")
            flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_CLOEXEC
            kernel.close(kernel.open(self.paths.exit(self.id), flags, 0o600))

    def launch(self, stdin_fd: int, stdout_fd: int, stderr_fd: int) -> lifecycle.Process:
        """Create and start the container; with a terminal the three are -1.

        Raises the Error of whatever failed; nothing is left of the attempt then.
        """
        streams = (stdin_fd, stdout_fd, stderr_fd)
        process = None
        try:
            if self.creation is None:
                self.begin(streams)
            assert self.creation is not None
            self.started_at = times.now()
            pid = self.creation.pid
            if pid:
                self._save_state(pid, procfs.start_time(pid))
            process = self._create(streams)
            if process.pid != pid:
                self._save_state(process.pid, process.start_time)
            if self.options.get("pidfile"):
                with step("write the pid file %s", self.options["pidfile"]):
                    commits.replace(self.options["pidfile"], str(process.pid))
            # Before the command can end: until its end is recorded, a start on record says that
            # the monitor is still to be heard (`Container.ending`).
            if not self.options.get("rm"):
                self._note_start()
            lifecycle.start(self.running_dir)
        except BaseException as failure:
            if process is None:
                self.abandon(failure)
            else:
                self._undo(process, failure)
            raise
        self.made_sources = []
        self.unlock()
        return process

    def finished(self, process: lifecycle.Process, wait_status: int) -> int:
        """Take down what the run had and record how it ended; the exit code."""
        code = wait_status >> 8 & 0xFF
        if wait_status & 0x7F:
            code = 128 + (wait_status & 0x7F)
        oom_killed = False
        if self.group is not None:
            oom_killed = bool(self.group.oom_killed())
            self._end_group()
        self._record_end(code, oom_killed)
        return code

    def stopping(self) -> bool:
        """Whether somebody asked for a stop, so that no restart policy applies."""
        return os.path.exists(self.paths.stop(self.id))

    def policy(self) -> dict[str, Any]:
        """The restart policy: that of the options, or what `update` has made of it since."""
        try:
            with open(self.paths.policy(self.id)) as file:
                name, maximum = file.read(100).split()
        except FileNotFoundError:
            policy: dict[str, Any] = self.options["restart"]
            return policy
        return {"name": name, "maximum": int(maximum)}

    def restarting(self, count: int, delay: float) -> None:
        """Record that the next start comes after `delay` seconds."""
        self.restarts = count
        try:
            self._save_state(0, None, restarting=True)
        except KernelError as failure:
            if failure.errno not in _NO_ROOM:
                raise

    def ended(self, exit_code: int) -> None:
        """The last act of a monitor: no restart follows. Applies --rm."""
        if self.creation is not None:  # begun, and then its monitor could not be
            self.creation.abandon()
            self.creation = None
            self._end_group()
        self.unlock()
        remove_volatile(self.running_dir)
        if self.options.get("rm"):
            discard(self.paths, self.id, records.present_name(self.paths, self.record))
            reap_if_worthwhile(self.paths, self.id)

    def begin(self, streams: tuple[int, int, int]) -> None:
        """Gather the resources and fork the first process, which builds while we go on.

        `launch` or `abandon` must follow.
        """
        self.prepare()
        if self.restarts and os.path.exists(self.paths.policy(self.id)):
            self._read_again()
        self.config = surroundings.rejoined(self.paths, self.options, self.config)
        hostname = self.config.get("hostname") or os.uname().nodename
        hostfiles.write(self.paths.etc(self.id), hostname, self.options)
        self._make_volume_sources()
        self._make_group()
        self.creation = lifecycle.Creation(self._launch(streams), self.running_dir)

    def abandon(self, failure: BaseException) -> None:
        """Undo what `begin` did, also in part, after `failure`."""
        if self.creation is not None:
            self.creation.abandon()
            self.creation = None
        self._undo(None, failure)

    def settle(self) -> None:
        """Put a record that `run` has just written on the disk, now that nobody waits for it.

        The order matters: where container.json is whole after a crash, so is what it goes with.
        """
        if self.settled or self.options.get("rm"):
            return
        self.settled = True
        paths = self.paths
        try:
            for path in (paths.config(self.id), paths.record(self.id), paths.container(self.id)):
                commits.sync(path)
            commits.sync(paths.containers)
        except FileNotFoundError:
            pass  # removed meanwhile
        except OSError as failure:
            steps.warn(f"the container would not survive a crash of the host: {failure}")

    # ------------------------------------------------------------------------ the parts

    def unlock(self) -> None:
        """Let go of the container's lock."""
        if self.lock_fd >= 0:
            kernel.close(self.lock_fd)
            self.lock_fd = -1

    def _read_again(self) -> None:
        """Take over what `update` has changed since the monitor began."""
        from minicontainer.runtime import spec

        self.config = spec.load(self.paths.config(self.id))
        self.record = records.Container(self.paths, self.id).record
        self.options = self.record["options"]

    def _make_volume_sources(self) -> None:
        for mount in self.options.get("mounts") or ():
            source = mount.get("source")
            if mount["type"] != "bind" or os.path.lexists(source):
                continue
            if not mount.get("create"):
                raise UsageError(
                    f"invalid mount: bind source path does not exist: {source}",
                    hint="-v makes a missing directory, --mount does not",
                )
            with step("make the volume directory %s", source):
                missing = source
                while not os.path.lexists(missing):
                    self.made_sources.append(missing)
                    missing = os.path.dirname(missing)
                os.makedirs(source, 0o755)

    def _make_group(self) -> None:
        layout = self.layout or cgroups.detect()
        self.group = None
        resources = self.config["linux"].get("resources") or {}
        asked = self.options
        if layout.mode == "none":
            limits = [name for name in LIMITS if asked.get(name)]
            if os.geteuid() == 0 and limits:
                raise Error(
                    f"the limit {_flag(limits[0])} needs cgroups, and none are mounted here",
                    hint="mount -t cgroup2 none /sys/fs/cgroup",
                )
            if limits:
                steps.warn(
                    f"{', '.join(map(_flag, limits))}: not enforced, as no cgroup is delegated "
                    "to this user"
                )
            return
        tolerate = [] if asked.get("memory_swap") is not None else ["swap"]
        if asked.get("pids_limit") is None:
            tolerate.append("pids")
        self.group = cgroups.create(
            layout, self.config["linux"]["cgroupsPath"], resources, tolerate=tolerate
        )

    def _create(self, streams: tuple[int, int, int]) -> lifecycle.Process:
        creation, self.creation = self.creation, None
        assert creation is not None
        try:
            return creation.finish()
        except SnapshotError as refused:
            from minicontainer.engine import copied

            copied.make(self.paths, self.id, self.record["lower"], refused)
        return lifecycle.create(self._launch(streams), self.running_dir)

    def _launch(self, streams: tuple[int, int, int]) -> init.Launch:
        config, snapshot = self.config, snapshot_of(self.paths, self.record)
        if snapshot is None:
            root = {**config["root"], "path": self.paths.copy(self.id)}
            config = {**config, "root": root}
        launch = init.Launch(
            self.id,
            config,
            self.paths.container(self.id),
            snapshot=snapshot,
            group=self.group,
            user=self.options.get("user") or "",
            groups=self.options.get("group_add") or [],
            streams=streams,
            cgroup_view=cgroup_view(self.group),
        )
        launch.inherited = [fd for fd in (self.lock_fd, *self.private_fds) if fd >= 0]
        return launch

    def _save_state(self, pid: int, start_time: int | None, *, restarting: bool = False) -> None:
        own = os.getpid()
        state = {
            "id": self.id,
            "pid": pid,
            "start_time": start_time,
            "boot_id": procfs.boot_id(),
            "monitor_pid": own,
            "monitor_start_time": procfs.start_time(own),
            "started_at": self.started_at,
            "bundle": self.paths.container(self.id),
            "cgroup": self.group.path if self.group is not None else "",
            "restarting": restarting,
        }
        with step("save the container's state"):
            facts.save(self.running_dir, state)

    def _note_start(self) -> None:
        last = {
            "started_at": self.started_at,
            "finished_at": "",
            "exit_code": 0,
            "oom_killed": False,
            "error": "",
            "restart_count": self.restarts,
            "boot_id": procfs.boot_id(),
            "manual_stop": False,
        }
        self._write_last(last)

    def _record_end(self, code: int, oom_killed: bool) -> None:
        if not self.options.get("rm"):
            last = {
                "started_at": self.started_at,
                "finished_at": times.now(),
                "exit_code": code,
                "oom_killed": oom_killed,
                "error": "",
                "restart_count": self.restarts,
                "boot_id": procfs.boot_id(),
                "manual_stop": self.stopping(),
            }
            self._write_last(last)
        try:
            kernel.write_file(self.paths.exit(self.id), f"{code}\n")
        except OSError:
            pass  # removed by force meanwhile, or no space: who waits sees the monitor's end
        lifecycle.remove_fifos(self.running_dir)

    def _write_last(self, last: dict[str, Any]) -> None:
        """A full disk or a removal by force must not end the supervision."""
        try:
            records.write(self.paths.last(self.id), last, durable=False)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, *_NO_ROOM):
                raise

    def _undo(self, process: lifecycle.Process | None, failure: BaseException) -> None:
        if process is not None:
            if facts.process_alive(process.pid, process.start_time):
                kernel.kill(process.pid, kernel.SIGKILL)
            lifecycle.reap(process.pid)
            for fd in (process.pidfd, process.console_fd):
                if fd >= 0:
                    kernel.close(fd)
        self._end_group()
        remove_volatile(self.running_dir)
        for directory in sorted(self.made_sources, key=len, reverse=True):
            _remove_empty(directory)
        if not self.options.get("rm") and isinstance(failure, Error):
            code = failure.exit_code if failure.exit_code in (126, 127) else 128
            now = times.now()
            self._write_last(
                {
                    "started_at": "",
                    "finished_at": now,
                    "exit_code": code,
                    "error": str(failure),
                    "boot_id": procfs.boot_id(),
                }
            )

    def _end_group(self) -> None:
        """Kill what outlived the first process (a shared pid namespace), remove the group."""
        if self.group is None:
            return
        try:
            # With a pid namespace of its own, all have ended with the first process.
            if self.options.get("pid") and not self.group.empty():
                self.group.kill()
            self.group.delete()
        except (Error, OSError) as failure:
            steps.warn(f"the cgroup {self.group.path} was left behind: {failure}")
        self.group = None


LIMITS = (
    "memory",
    "memory_swap",
    "memory_reservation",
    "cpus",
    "cpu_shares",
    "cpu_quota",
    "cpuset_cpus",
    "cpuset_mems",
    "pids_limit",
)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def snapshot_of(paths: Paths, record: dict[str, Any]) -> overlay.Snapshot | None:
    """The overlay of a container; None when its files were copied instead."""
    container_id = record["id"]
    if os.path.isdir(paths.copy(container_id)):
        return None
    return overlay.Snapshot(
        record["lower"],
        paths.upper(container_id),
        paths.work(container_id),
        bool(record["options"].get("rm")),
        os.geteuid() != 0,
    )


def cgroup_view(group: cgroups.Group | None) -> list[tuple[str, str]]:
    """What /sys/fs/cgroup shows on v1: (directory, host directory) and (link, directory)."""
    if group is None or not group.layout.controllers:
        return []
    directories = group.directories()
    view, links = {}, []
    for controller, mount_point in sorted(group.layout.controllers.items()):
        name = os.path.basename(mount_point)
        if controller not in directories:
            continue
        view[name] = directories[controller]
        if controller.partition("=")[2] or controller == name:
            continue
        links.append((controller, name))
    return [*view.items(), *links]


def remove_volatile(directory: str) -> None:
    """Remove a container's volatile directory; may be repeated.

    It vanishes at once and whole: whoever sees it gone may make it anew and lose nothing.
    """
    gone = f"{directory}.{os.urandom(4).hex()}.gone"
    try:
        kernel.rename(directory, gone)
        for name in os.listdir(gone):
            _unlink(f"{gone}/{name}")
        kernel.rmdir(gone)
    except FileNotFoundError:
        pass


def discard(paths: Paths, container_id: str, name: str) -> None:
    """Take a container out of the state: its directory goes to the trash, its name is free."""
    try:
        kernel.rename(paths.container(container_id), f"{paths.trash}/{container_id}")
    except FileNotFoundError:
        pass
    records.release_name(paths, name, container_id)


def reap_if_worthwhile(paths: Paths, container_id: str) -> None:
    """Empty the trash in the background when this container wrote files or it has grown long."""
    upper = f"{paths.trash}/{container_id}/upper"
    try:
        written = not _MOUNT_POINTS.issuperset(os.listdir(upper))
        if not written and len(os.listdir(paths.trash)) < TRASH_MOST:
            return
    except OSError:
        return
    from minicontainer.engine import prune

    prune.reap_in_background(paths)


# What the mounts of every container leave in an upper directory; empty all.
_MOUNT_POINTS = frozenset(("dev", "proc", "sys", "etc"))
TRASH_MOST = 32


def _remove_empty(directory: str) -> None:
    try:
        kernel.rmdir(directory)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.EROFS):
            raise


def _unlink(path: str) -> None:
    try:
        kernel.unlink(path)
    except FileNotFoundError:
        pass
