"""create, start and run: a container's record, its resources, and who watches over it.

run, no terminal     this process is the monitor; output passes through it to our own
run -i/-t            a forked monitor; this process relays the terminal and may leave (detach)
run -d, start        a forked monitor; this process leaves when the command runs
"""

from __future__ import annotations

import os
import sys

from minicontainer import kernel, steps
from minicontainer.engine import bundle, pipes, records, surroundings, task
from minicontainer.errors import Conflict, Error, InvalidState
from minicontainer.paths import Paths
from minicontainer.primitives import cgroups, commits
from minicontainer.runtime import process as last_hop
from minicontainer.runtime import sync
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minicontainer.engine.logs import LogWriter

WARNING = b"W"
LOG_SIZE, LOG_FILES = 10_000_000, 3


def create(paths: Paths, options: dict[str, Any]) -> str:
    """Make a container that `start` can run; its id. Nothing is left when it fails."""
    made = _create(paths, options, durable=True)
    made.unlock()
    return made.id


def run_detached(paths: Paths, options: dict[str, Any]) -> str:
    """Create a container and start it under a monitor of its own; its id, once the command runs."""
    made = _create(paths, options)
    try:
        _spawn_monitor(made, -1)
    except BaseException:
        _discard_failed(made)
        raise
    return made.id


def run(paths: Paths, options: dict[str, Any]) -> int:
    """Create a container, run it in the foreground, and give the command's exit code."""
    made = _create(paths, options)
    try:
        if _may_be_left(options):
            return _relayed(made, options.get("detach_keys"), stdin=bool(options["interactive"]))
        return _supervised(made)
    except BaseException:
        _discard_failed(made)
        raise


def _may_be_left(options: dict[str, Any]) -> bool:
    """Whether the caller may go before the container: by the detach keys, or by a signal that is
    not for the container."""
    if options.get("tty") or not options.get("sig_proxy", True):
        return True
    return bool(options.get("interactive")) and os.isatty(0)


def start(paths: Paths, container: records.Container) -> None:
    """Start a stopped or created container, detached; nothing happens to one that runs."""
    made = _existing(paths, container)
    if made is not None:
        _spawn_monitor(made, -1)


def start_attached(
    paths: Paths,
    container: records.Container,
    *,
    stdin: bool,
    detach_keys: str | None,
    sig_proxy: bool,
) -> int:
    """Start a container and relay its streams; the command's exit code, 0 when detached."""
    made = _existing(paths, container)
    if made is None:
        from minicontainer.engine import attach

        return attach.attach(container, stdin=stdin, detach_keys=detach_keys, sig_proxy=sig_proxy)
    made.options["sig_proxy"] = sig_proxy
    return _relayed(made, detach_keys, stdin=stdin)


def _existing(paths: Paths, container: records.Container) -> task.Task | None:
    lock_fd = records.lock(container)
    try:
        container.settle()
        if container.broken:
            raise Error(f"container {container.id[:12]} is broken: {container.broken}")
        if container.status == "paused":
            raise InvalidState(
                f"cannot start the paused container {container.name}", hint="unpause it"
            )
        if container.running or container.restarting:
            kernel.close(lock_fd)
            return None
        from minicontainer.runtime import spec

        config = spec.load(paths.config(container.id))
        return task.Task(paths, container.record, config, lock_fd)
    except BaseException:
        kernel.close(lock_fd)
        raise


def _create(paths: Paths, options: dict[str, Any], *, durable: bool = False) -> task.Task:
    """The record and directories of a new container, locked until it is started or left.

    durable: they are on the disk when this returns; else whoever starts it has `Task.settle` to do.
    """
    records.prepare(paths)
    if options.get("rootfs"):
        options["rootfs"] = surroundings.check_rootfs(options["rootfs"])
        return _make(paths, options, {"lower": [options["rootfs"]]}, {}, durable)
    from minicontainer.engine import images

    store = images.open_store(paths)
    # Nothing that the image reaches may be removed until the record says that it is in use.
    with store.hold():
        image = images.for_run(paths, options)
        settings: dict[str, Any] = image.config.get("config") or {}
        for option, key in (("user", "User"), ("stop_signal", "StopSignal")):
            options[option] = options.get(option) or settings.get(key) or None
        options["label"] = {**(settings.get("Labels") or {}), **options["label"]}
        base = {
            "lower": image.layers,
            "image_id": image.id,
            "layers": sorted(image.layer_ids),
        }
        return _make(paths, options, base, settings, durable)


def _make(
    paths: Paths,
    options: dict[str, Any],
    base: dict[str, Any],
    image_config: dict[str, Any],
    durable: bool,
) -> task.Task:
    """The container of `options` upon `base`: see `records.created_record`."""
    if options.get("cidfile") and os.path.lexists(options["cidfile"]):
        raise Conflict(
            f"the container ID file {options['cidfile']} exists already",
            hint="remove it when the container that it names is gone",
        )
    container_id = records.new_id()
    layout = cgroups.detect()
    host = surroundings.gather(paths, options, layout)
    config = bundle.compose(
        container_id, options, paths=paths, host=host, image_config=image_config
    )
    durable = durable and not options.get("rm")
    name = ""
    with step("stage the container in %s", paths.tmp):
        lock_fd = records.stage(paths, container_id)
    try:
        name = records.claim_name(paths, options.get("name"), container_id)
        record = records.created_record(container_id, name, options, base)
        with step("write the container's record"):
            _fill(paths, container_id, record, config, durable=durable)
        if options.get("cidfile"):
            with step("write the container ID file %s", options["cidfile"]):
                commits.replace(options["cidfile"], container_id)
        with step("commit the container"):
            kernel.rename(f"{paths.tmp}/{container_id}", paths.container(container_id))
            if durable:
                commits.sync(paths.containers)
    except BaseException:
        _unstage(paths, container_id, name, lock_fd)
        raise
    made = task.Task(paths, record, config, lock_fd)
    made.layout = layout
    made.settled = durable
    return made


def _fill(
    paths: Paths,
    container_id: str,
    record: dict[str, Any],
    config: dict[str, Any],
    *,
    durable: bool,
) -> None:
    staged = f"{paths.tmp}/{container_id}"
    for name in ("upper", "work", "rootfs", "etc"):
        kernel.mkdir(f"{staged}/{name}", 0o755)
    # The upper directory's own mode and owner are what the container sees as those of its root.
    lower = os.stat(record["lower"][0])
    kernel.chmod(f"{staged}/upper", lower.st_mode & 0o7777)
    if os.geteuid() == 0 and (lower.st_uid or lower.st_gid):
        kernel.chown(f"{staged}/upper", lower.st_uid, lower.st_gid)
    records.write(f"{staged}/config.json", config, durable=durable)
    records.write(f"{staged}/container.json", record, durable=durable)


def _unstage(paths: Paths, container_id: str, name: str, lock_fd: int) -> None:
    from minicontainer.primitives import trees

    if os.path.isdir(paths.container(container_id)):
        task.discard(paths, container_id, name)
    elif name:
        records.release_name(paths, name, container_id)
    tmp_fd = kernel.open(paths.tmp, kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
    try:
        trees.remove_tree(tmp_fd, container_id)
    finally:
        kernel.close(tmp_fd)
        kernel.close(lock_fd)


def _discard_failed(made: task.Task) -> None:
    """A start that failed leaves the container, as Docker does, but for --rm.

    One that runs all the same has only lost its monitor.
    """
    made.unlock()
    made.settle()
    if made.options.get("rm") and not records.Container(made.paths, made.id).running:
        task.discard(made.paths, made.id, made.record["name"])
        task.reap_if_worthwhile(made.paths, made.id)


def _log_writer(made: task.Task) -> LogWriter | None:
    options = made.options
    if options.get("log_driver") == "none":
        return None
    from minicontainer.engine import logs

    settings = options.get("log_opt") or {}
    return logs.LogWriter(
        made.paths.log(made.id),
        int(settings.get("max-size", LOG_SIZE)),
        int(settings.get("max-file", LOG_FILES)),
    )


def _supervised(made: task.Task) -> int:
    """Be the monitor: the container's output passes through this process.

    What a monitor needs is imported while the container's first process builds.
    """
    options = made.options
    interactive = bool(options.get("interactive"))
    theirs, ours = pipes.open_pipes(interactive)
    try:
        made.begin(theirs)
        from minicontainer.engine import monitor, streams

        log = _log_writer(made)
    except BaseException as failure:
        made.abandon(failure)
        pipes.close_all((*theirs, *ours))
        raise
    return monitor.supervise(
        made,
        tty=False,
        open_stdin=interactive,
        log=log,
        attach_path=made.paths.attach(made.id),
        local=streams.LocalStreams(0 if interactive else -1, 1, 2),
        signals=bool(options.get("sig_proxy", True)),
        report=lambda _: made.settle(),
        pipes=(theirs, ours),
    )


def _relayed(made: task.Task, detach_keys: str | None, *, stdin: bool) -> int:
    """Have a monitor forked with one client attached already, and be that client."""
    from minicontainer.engine import attach

    if made.options.get("tty"):
        made.config["process"]["consoleSize"] = attach.console_size()
    own_end, client_fd = kernel.socketpair(kernel.SOCK_STREAM)
    try:
        _spawn_monitor(made, client_fd)
    finally:
        kernel.close(client_fd)
    options = made.options
    code = attach.relay(
        own_end,
        tty=bool(options.get("tty")),
        stdin=stdin,
        detach_keys=detach_keys,
        forward=bool(options.get("sig_proxy", True)),
    )
    return code or 0


def _spawn_monitor(made: task.Task, client_fd: int) -> None:
    """Fork the monitor and return once the command runs; raises what it met instead."""
    own_end, report_fd = kernel.socketpair()
    with step("fork the monitor"):
        pid = kernel.fork()
    if pid == 0:
        kernel.close(own_end)
        _be_monitor(made, report_fd, client_fd)
    kernel.close(report_fd)
    made.unlock()
    try:
        while True:
            kind, payload, _ = sync.receive(own_end)
            if kind == WARNING:
                steps.warn(payload)
            elif kind == sync.READY:
                return
            elif kind == sync.FAILURE:
                kernel.waitpid(pid, 0)
                raise sync.decode_failure(payload)
            else:
                raise Error("the container's monitor ended before the container had started")
    finally:
        kernel.close(own_end)


def _forget_the_command_line() -> None:
    """Free the modules that parsed it: a monitor stays for long and never returns to them."""
    for name in list(sys.modules):
        if name.startswith("minicontainer.cli"):
            vars(sys.modules.pop(name)).clear()


def _be_monitor(made: task.Task, report_fd: int, client_fd: int) -> NoReturn:
    """In the forked monitor: leave the caller's session and streams, then supervise."""
    steps.role = "monitor"
    reported: list[bool] = []

    def report(failure: Error | None) -> None:
        if reported:
            return
        reported.append(True)
        if failure is None:
            sync.send(report_fd, sync.READY)
        else:
            sync.send(report_fd, sync.FAILURE, sync.encode_failure(failure))
        kernel.close(report_fd)
        made.private_fds = []
        steps.warner = None
        made.settle()

    def tell(sentence: str) -> None:
        sync.send(report_fd, WARNING, sentence)

    _forget_the_command_line()
    from minicontainer.engine import monitor

    try:
        steps.warner = tell
        made.private_fds = [report_fd, client_fd]
        # Also what our caller left open for us to inherit, a lock perhaps: we stay for long.
        last_hop.close_above(report_fd, client_fd, made.lock_fd)
        kernel.setsid()
        kernel.chdir("/")
        null_fd = kernel.open("/dev/null", kernel.O_RDWR | kernel.O_CLOEXEC)
        for fd in (0, 1, 2):
            kernel.dup2(null_fd, fd)
        kernel.close(null_fd)
        options = made.options
        try:
            made.prepare()
            log = _log_writer(made)
        except BaseException as failure:
            made.abandon(failure)
            raise
        monitor.supervise(
            made,
            tty=bool(options.get("tty")),
            open_stdin=bool(options.get("interactive")),
            log=log,
            attach_path=made.paths.attach(made.id),
            client_fd=client_fd,
            signals=False,
            report=report,
        )
    except BaseException as failure:  # the caller's stack must not unwind in this process
        if isinstance(failure, OSError):
            failure = steps.kernel_error("watch over the container", failure)
        try:
            report(
                failure if isinstance(failure, Error) else Error(f"the monitor failed: {failure!r}")
            )
        except OSError:
            pass
    finally:
        os._exit(0)
