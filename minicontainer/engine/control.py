"""stop, kill, wait, pause, remove, rename, update: the verbs on an existing container."""

from __future__ import annotations

import errno
import os
import time

from minicontainer import kernel
from minicontainer.engine import bundle, records, run, task
from minicontainer.engine.records import Container
from minicontainer.errors import Conflict, Error, InvalidState, KernelError, NotFound
from minicontainer.primitives import cgroups, commits
from minicontainer.runtime import state as facts
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STOP_SECONDS = 10
END_SECONDS = 10.0  # what the kernel and a monitor may take to finish a killed container
_STEP = 0.005
_PAUSE = 0.05  # for what may take long to come


def stop(container: Container, timeout: int | None = None, signal: str | None = None) -> None:
    """Ask the container to end, wait `timeout` seconds (-1: for ever), then kill all of it.

    One that has ended already is left alone; no restart policy applies afterwards.
    """
    _mark_stopped(container)
    _wait_for_monitor(container)
    if container.running:
        _stop_running(container, timeout, signal)
        container.refresh()
    _mark_stopped(container)  # for the next boot, where no monitor has seen the first mark


def _stop_running(container: Container, timeout: int | None, signal: str | None) -> None:
    seconds = _first(timeout, container.options.get("stop_timeout"), STOP_SECONDS)
    word = signal or _stop_signal(container)
    if container.status == "paused":
        unpause(container)
    if seconds != 0:
        container.signal(kernel.signal_number(word))
        deadline = None if seconds < 0 else time.monotonic() + seconds
        if _wait_for_end(container, deadline):
            return
    _kill_all(container)
    if not _wait_for_end(container, time.monotonic() + END_SECONDS):
        raise Error(f"container {container.name} did not end within {END_SECONDS:g} s of SIGKILL")


def _stop_signal(container: Container) -> str:
    return container.options.get("stop_signal") or "TERM"


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _mark_stopped(container: Container) -> None:
    """Tell the monitor, or the next boot, that this end is wanted."""
    if container.running or container.monitored:
        try:
            flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_CLOEXEC
            kernel.close(kernel.open(container.paths.stop(container.id), flags, 0o600))
        except FileNotFoundError:
            pass
    elif container.last and not container.last.get("manual_stop"):
        container.write_last(manual_stop=True)


def _kill_all(container: Container) -> None:
    """SIGKILL to the first process, which takes its pid namespace along, and to the cgroup."""
    container.signal(kernel.SIGKILL)
    group = container.group()
    if group is None:
        return
    if container.options.get("pid"):
        group.kill()
    elif group.frozen():
        try:
            group.thaw()  # cgroup v1 keeps even the killed frozen
        except KernelError as failure:
            if failure.errno != errno.ENOENT:  # cgroup v2 does not: it is gone already
                raise


def _wait_for_end(container: Container, deadline: float | None) -> bool:
    """Whether the first process ended and its monitor has recorded so before the deadline."""
    state = container.state or {}
    pidfd = -1
    try:
        pidfd = kernel.pidfd_open(state["pid"]) if container.running else -1
        poller = kernel.poll()
        if pidfd >= 0:
            poller.register(pidfd, 0x1)
            left = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
            poller.poll(left)
    except OSError:
        pass  # gone already, or before Linux 5.3: the loop below looks
    finally:
        if pidfd >= 0:
            kernel.close(pidfd)
    while True:
        container.refresh()
        ended = not facts.is_alive(state) and not (container.monitored and container.running)
        if ended and (not facts.is_alive(state, "monitor_") or _recorded(container, state)):
            return True
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(_STEP)


def _recorded(container: Container, state: dict[str, Any]) -> bool:
    """Whether the monitor has written down the end of the run that `state` describes."""
    now = container.state
    return now is None or now.get("started_at") != state.get("started_at") or not now.get("pid")


def _wait_for_monitor(container: Container) -> None:
    """Until its monitor, on seeing the mark, has ended, or has just started it again."""
    deadline = time.monotonic() + END_SECONDS
    while container.monitored and not container.running and time.monotonic() < deadline:
        time.sleep(_STEP)
        container.refresh()


def _end_by_force(container: Container) -> None:
    """Kill the container, again if it was just being started again, and have its monitor end."""
    deadline = time.monotonic() + END_SECONDS
    while (container.running or container.monitored) and time.monotonic() < deadline:
        _mark_stopped(container)
        if container.running:
            _kill_all(container)
            _wait_for_end(container, deadline)
        _wait_for_monitor(container)


def kill(container: Container, number: int) -> None:
    """Send a signal to the container's first process. Raises InvalidState when it does not run.

    KILL and the container's stop signal are a wish to end it: no restart policy applies then.
    """
    if not container.running:
        raise InvalidState(f"Container {container.name} is not running")
    if number in (kernel.SIGKILL, kernel.signal_number(_stop_signal(container))):
        _mark_stopped(container)
    if number == kernel.SIGKILL:
        _kill_all(container)
    elif not container.signal(number):
        raise InvalidState(f"Container {container.name} is not running")


def wait(container: Container, condition: str = "not-running") -> int:
    """The exit code, once the container runs no more and is not to be restarted; perhaps at once.

    condition: not-running, next-exit (its next end, also when it runs later) or removed.
    """
    if condition == "next-exit":
        _wait_for_start(container)
    code = container.exit_code
    while container.running or container.restarting:
        if container.running:
            code = _await_exit(container)
            if condition == "next-exit":
                return code
        else:
            time.sleep(_PAUSE)
        container.refresh()
    while condition == "removed" and os.path.isdir(container.paths.container(container.id)):
        time.sleep(_PAUSE)
    return code


def _wait_for_start(container: Container) -> None:
    while not container.running:
        if not os.path.isdir(container.paths.container(container.id)):
            raise NotFound(f"container {container.name} was removed")
        time.sleep(_PAUSE)
        container.refresh()


def _await_exit(container: Container) -> int:
    """The exit code of the present run, once it has ended; 255 if nobody has seen that."""
    try:
        exit_fd = kernel.open(
            container.paths.exit(container.id), kernel.O_RDONLY | kernel.O_CLOEXEC
        )
    except FileNotFoundError:
        exit_fd = -1
    _wait_for_end(container, None)
    return _read_code(exit_fd) if exit_fd >= 0 else container.exit_code


def _read_code(fd: int) -> int:
    """What the monitor wrote: the file stays readable here when the container is removed."""
    try:
        return int(os.pread(fd, 16, 0) or b"255")
    finally:
        kernel.close(fd)


def pause(container: Container) -> None:
    """Freeze every process of the container. Raises InvalidState, Error without a freezer."""
    if not container.running:
        raise InvalidState(f"Container {container.name} is not running")
    if container.status == "paused":
        raise InvalidState(f"Container {container.name} is already paused")
    _group(container, "pausing").freeze()


def unpause(container: Container) -> None:
    """Let a paused container go on. Raises InvalidState when it is not paused."""
    if container.status != "paused":
        raise InvalidState(f"Container {container.name} is not paused")
    _group(container, "unpausing").thaw()


def _group(container: Container, purpose: str) -> Any:
    group = container.group()
    if group is None:
        raise Error(
            f"{purpose} needs a cgroup, and container {container.name} has none",
            hint="as an ordinary user, have a cgroup delegated (systemd-run --user --scope)",
        )
    return group


def restart(container: Container, timeout: int | None = None, signal: str | None = None) -> None:
    """Stop the container if it runs, and start it again."""
    if container.running or container.monitored:
        stop(container, timeout, signal)
        container.refresh()
    run.start(container.paths, container)


def remove(container: Container, force: bool = False, volumes: bool = False) -> None:
    """Remove the container and its files. Raises InvalidState when it runs and force is off.

    volumes: its anonymous volumes too, of which there are none without images.
    """
    if force:
        _end_by_force(container)
    else:
        container.settle()
        if container.running or container.monitored:
            raise InvalidState(
                f"cannot remove container {container.name}: container is running",
                hint="stop it first, or force the removal with -f",
            )
    try:
        lock_fd = records.lock(container)
    except Error:
        return  # its monitor has removed it
    try:
        if container.running:
            raise InvalidState(f"container {container.name} was started meanwhile")
        _remove_leftovers(container)
        with step("move the container to the trash"):
            task.discard(container.paths, container.id, container.name)
    finally:
        kernel.close(lock_fd)
    from minicontainer.engine import prune

    prune.reap_trash(container.paths)


def _remove_leftovers(container: Container) -> None:
    """What a killed monitor could not take down: the cgroup, and the volatile directory."""
    layout = cgroups.detect()
    # Without a state a start may have died, or it be damaged, with the group made already.
    made = bundle.cgroup_path(container.id, container.options.get("cgroup_parent"))
    path = (container.state or {}).get("cgroup", made)
    if path and layout.mode != "none":
        group = cgroups.open_group(layout, path)
        if not group.empty():
            group.kill()
        group.delete()
    task.remove_volatile(container.paths.run(container.id))


def rename(container: Container, new_name: str) -> None:
    """Give the container another name. Raises Conflict when that is taken."""
    old = container.name
    if new_name == old:
        raise Conflict(f"the container is named {new_name} already")
    lock_fd = records.lock(container)
    try:
        records.claim_name(container.paths, new_name, container.id)
        record = {**container.record, "name": new_name}
        try:
            records.write(container.paths.record(container.id), record)
        except BaseException:
            records.release_name(container.paths, new_name, container.id)
            raise
        records.release_name(container.paths, old, container.id)
        container.record = record
    finally:
        kernel.close(lock_fd)


def update(container: Container, changes: dict[str, Any]) -> None:
    """Change limits and restart policy, at once where the container runs, and for later starts.

    changes: option names of `run` and their new values.
    """
    from minicontainer.engine import surroundings
    from minicontainer.runtime import spec

    if container.options.get("rm") and changes.get("restart", {}).get("name", "no") != "no":
        raise InvalidState(f"container {container.name} was made with --rm: it cannot be restarted")
    lock_fd = records.lock(container)
    try:
        options = {**container.options, **changes}
        paths = container.paths
        config = spec.load(paths.config(container.id))
        # Only the limits are wanted: the rest is what composes anywhere, also without its image.
        bare: dict[str, Any] = {"pid": None, "ipc": None, "uts": None, "network": "none"}
        bare.update(entrypoint=[], command=config["process"]["args"])
        asked = {**options, **bare}
        host = surroundings.gather(paths, asked, cgroups.detect())
        composed = bundle.compose(container.id, asked, paths=paths, host=host)
        resources = composed["linux"]["resources"]
        config["linux"]["resources"] = resources
        if container.running and any(name in task.LIMITS for name in changes):
            tolerate = [] if options.get("memory_swap") is not None else ["swap"]
            _group(container, "updating").update(resources, tolerate=tolerate)
        records.write(paths.config(container.id), config)
        container.record = {**container.record, "options": options}
        records.write(paths.record(container.id), container.record)
        _tell_monitor(container)
    finally:
        kernel.close(lock_fd)


def _tell_monitor(container: Container) -> None:
    """Leave a word for the monitor, which has read the record when it began."""
    policy = container.options["restart"]
    try:
        with step("tell the container's monitor"):
            text = f"{policy['name']} {policy['maximum']}"
            commits.replace(container.paths.policy(container.id), text)
    except KernelError as failure:
        if failure.errno != errno.ENOENT:  # there is none
            raise
