"""The container's first process, from fork to execve, in order. It never returns.

It is a fork of the runtime: the configuration is in memory, nothing is parsed or imported here.
What it may not do yet is said where it will: seccomp, the device filter's counterpart on the
parent's side, and the sealed last hop that keeps the interpreter out of the container's reach.
"""

from __future__ import annotations

import os

from minicontainer import kernel, steps
from minicontainer.primitives import mounts, namespaces, overlay, rootfs, sysctls
from minicontainer.runtime import process as last_hop
from minicontainer.runtime import sync
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minicontainer.primitives.cgroups import Group


class Launch:
    """All that the child needs, gathered before the fork."""

    def __init__(
        self,
        container_id: str,
        config: dict[str, Any],
        bundle: str,
        *,
        snapshot: overlay.Snapshot | None,
        group: Group | None,
        user: str | None,
        groups: list[str],
        streams: tuple[int, int, int],
        cgroup_view: list[tuple[str, str]],
    ) -> None:
        self.container_id = container_id
        self.config = config
        self.bundle = bundle
        self.snapshot = snapshot
        self.group = group
        self.user = user
        self.groups = groups
        self.streams = streams
        self.cgroup_view = cgroup_view  # (name, host directory) for /sys/fs/cgroup; v1 only
        self.flags, self.joined = namespaces.wanted(config)
        # Whether a user namespace, made or joined, owns the others.
        self.owned = any(entry["type"] == "user" for entry in config["linux"].get("namespaces", ()))
        # Filled by the parent just before the fork.
        self.channel_fd = self.fifo_fd = self.control_fd = -1
        self.inherited: list[int] = []


def main(launch: Launch) -> NoReturn:
    """Become the container's first process; ends with its command or with a FAILURE record."""
    steps.role = "init"
    try:
        sync.forbid_imports()
        for fd in launch.inherited:
            kernel.close(fd)
        if launch.group is not None:
            launch.group.join()
        kernel.setsid()
        kernel.umask(0)  # nodes and directories get the modes they are given; `become` sets it
        _set_oom_score(launch.config)
        process = _build(launch)
        _hand_over(launch, process)
    except BaseException as failure:  # whatever it is, the parent's stack must not unwind here
        _report(launch, failure)
    finally:
        os._exit(125)


def stage(launch: Launch) -> NoReturn:
    """Enter the user namespace, make or join the pid namespace in it, and fork `main`.

    The others must belong to the user namespace, and one pid namespace needs one more fork.
    """
    steps.role = "stage"
    try:
        sync.forbid_imports()
        if launch.group is not None:
            launch.group.join()
            launch.group = None
        # Before the user namespace: /proc/self belongs to the host's root afterwards.
        _set_oom_score(launch.config)
        _enter_user_namespace(launch)
        flags, launch.flags = launch.flags & ~kernel.CLONE_NEWUSER, 0
        with step("make the container's namespaces"):
            kernel.unshare(flags)
        joins_pid = [path for kind, path in launch.joined if kind == "pid"]
        for path in joins_pid:
            _join("pid", path)
        forks = bool(joins_pid) or flags & kernel.CLONE_NEWPID
        pid = kernel.fork() if forks else os.getpid()
        if pid == 0 or not forks:
            main(launch)
        sync.send(launch.channel_fd, sync.PID, str(pid))
        os._exit(0)
    except BaseException as failure:
        _report(launch, failure)
    finally:
        os._exit(125)


def _enter_user_namespace(launch: Launch) -> None:
    """Make one and have it mapped, or join that of another container; root in it from now on."""
    joined = [path for kind, path in launch.joined if kind == "user"]
    for path in joined:
        _join("user", path)
    if not joined:
        with step("make a user namespace"):
            kernel.unshare(kernel.CLONE_NEWUSER)
        sync.send(launch.channel_fd, sync.MAPS, str(os.getpid()))
        kind, _, _ = sync.receive(launch.channel_fd)
        if kind != sync.MAPS:
            os._exit(125)
    kernel.setresgid(0, 0, 0)
    kernel.setresuid(0, 0, 0)


def _build(launch: Launch) -> dict[str, Any]:
    """Make namespaces and file tree, enter them, become the user; the process, fully resolved."""
    config = launch.config
    _enter_namespaces(launch)
    kinds = {entry["type"] for entry in config["linux"].get("namespaces", ())}
    _set_host_names(config, kinds)
    if "network" in kinds and not any(kind == "network" for kind, _ in launch.joined):
        with step("bring the loopback interface up"):
            kernel.loopback_up()
    _set_sysctls(config)
    root = _build_root(launch)
    process = last_hop.identify(config["process"], launch.user, launch.groups)
    user = process["user"]
    last_hop.enter_directory(process.get("cwd", "/"))
    if config["root"].get("readonly"):
        with step("make the root file system read-only"):
            rootfs.make_read_only()
    _take_streams(launch, root, user)
    last_hop.set_limits(process)
    last_hop.new_keyring(launch.container_id)
    # seccomp without no_new_privs is loaded here: it needs CAP_SYS_ADMIN, which `become` drops.
    last_hop.become(process)
    process["path"] = last_hop.find_command(process["args"][0], process["env"])
    fds = (root.master_fd,) if root.master_fd >= 0 else ()
    sync.send(launch.channel_fd, sync.READY, "", fds)
    return process


def _enter_namespaces(launch: Launch) -> None:
    for kind, path in launch.joined:
        if kind not in ("user", "pid"):  # joined already: by the stage, or by the parent for us
            _join(kind, path)
    flags = launch.flags & ~kernel.CLONE_NEWPID
    if flags:
        with step("make the container's namespaces"):
            kernel.unshare(flags)


def _join(kind: str, path: str) -> None:
    with step("join the %s namespace %s", kind, path):
        fd = namespaces.open_path(path)
        kernel.setns(fd, namespaces.KINDS[kind][0])
        kernel.close(fd)


def _set_host_names(config: dict[str, Any], kinds: set[str]) -> None:
    if "uts" not in kinds:
        return
    if config.get("hostname"):
        with step("set the hostname %s", config["hostname"]):
            kernel.sethostname(config["hostname"])
    if config.get("domainname"):
        with step("set the domain name %s", config["domainname"]):
            kernel.setdomainname(config["domainname"])


def _set_sysctls(config: dict[str, Any]) -> None:
    """Through the host's /proc: what the container has there is not to be trusted."""
    for name, value in (config["linux"].get("sysctl") or {}).items():
        with step("set sysctl %s", name):
            kernel.write_file(f"/proc/sys/{sysctls.path_of(name)}", value)


def _set_oom_score(config: dict[str, Any]) -> None:
    score = config["process"].get("oomScoreAdj")
    if score is None:
        return
    with step("set oom_score_adj to %d", score):
        try:
            kernel.write_file("/proc/self/oom_score_adj", str(score))
        except PermissionError:
            # Lowering needs CAP_SYS_RESOURCE; the default, 0, is no reason to fail.
            if score != 0:
                raise


def _build_root(launch: Launch) -> rootfs.Root:
    config = launch.config
    path = os.path.join(launch.bundle, config["root"]["path"])
    with step("clone the volumes"):
        trees = rootfs.prepare_binds(config, launch.bundle)
    with step("make the mount namespace private"):
        mounts.make_private()
    if launch.snapshot is not None:
        overlay.mount(launch.snapshot, path)
    else:
        with step("bind the root file system %s", path):
            kernel.mount(path, path, None, kernel.MS_BIND | kernel.MS_REC, None)
    with step("open the root file system"):
        root = rootfs.Root(path, launch.owned, launch.cgroup_view)
    for operation in rootfs.plan(config, launch.bundle, trees):
        with step("%s", operation.sentence):
            operation.act(root, *operation.arguments)
    with step("give the container its own root"):
        rootfs.pivot(root)
    return root


def _take_streams(launch: Launch, root: rootfs.Root, user: dict[str, Any]) -> None:
    if root.slave_fd >= 0:
        with step("take the terminal"):
            last_hop.take_terminal(root.slave_fd, launch.config["process"])
    else:
        last_hop.use_streams(launch.streams)
    last_hop.own_streams(user["uid"], user["gid"])


def _hand_over(launch: Launch, process: dict[str, Any]) -> NoReturn:
    """Wait for `start`, then become the command.

    The sealed trampoline of the interpreter's protection will take this function's place.
    """
    kernel.close(launch.channel_fd)
    launch.channel_fd = -1
    kernel.read(launch.fifo_fd, 1)
    last_hop.reset_signals()
    # seccomp with no_new_privs is loaded here, as the last thing.
    last_hop.close_above(launch.control_fd)
    last_hop.execute(process["path"], process, process["args"][0])


def _report(launch: Launch, failure: BaseException) -> None:
    text = sync.encode_failure(failure)
    try:
        if launch.channel_fd >= 0:
            sync.send(launch.channel_fd, sync.FAILURE, text)
        else:
            kernel.write(launch.control_fd, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # the parent is gone: nobody is left to be told
