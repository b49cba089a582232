"""The container's file tree: planned as data, then built in a flat loop.

`plan` is pure: `config.json` in, a list of operations out, each with the sentence that says what it
does.  The forked child walks the list inside its own mount namespace and ends with `pivot`.
Every target is found beneath the root's descriptor (`inroot`), never by a path on the host.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives import devices, inroot, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from typing import Any

    Config = dict[str, Any]
else:
    from minicontainer.tuples import namedtuple

Operation = namedtuple("Operation", "sentence act arguments")

# Directories that are what they claim to be: a link there would show the container another tree.
_REAL = ("proc", "sysfs")
_NO_PATH = (errno.ENOENT,)


class Root:
    """What the operations share: descriptors of the root and of what masks are made from."""

    def __init__(self, path: str, bind_nodes: bool, cgroups: list[tuple[str, str]]) -> None:
        self.fd = kernel.open(path, kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
        self.null_fd = devices.open_null()
        self.bind_nodes = bind_nodes
        self.cgroups = cgroups  # (name below /sys/fs/cgroup, directory on the host); v1 only
        self.mask_file = self.mask_directory = -1
        self.master_fd = self.slave_fd = -1

    def directory(self, path: str) -> int:
        return inroot.directory_in_root(self.fd, path)


def prepare_binds(config: Config, bundle: str) -> dict[int, int]:
    """Detached trees for the bind mounts of `config`, by their index; called before the mount
    namespace is made private, so that shared and slave volumes keep their origin.

    Empty on kernels without detached mounts (before 5.12).
    """
    trees = {}
    for index, mount in enumerate(config.get("mounts", ())):
        options = mounts.parse_options(mount.get("options", []))
        if options.bind or mount.get("type") == "bind":
            try:
                trees[index] = _prepare_bind(os.path.join(bundle, mount["source"]), options)
            except OSError as failure:
                if failure.errno == errno.ENOSYS:
                    return {}
                raise
    return trees


def _prepare_bind(source: str, options: mounts.Options) -> int:
    """A detached tree; of /proc/PID/root/… it can be cloned only in the mount namespace of PID."""
    parts = source.split("/", 4)
    if len(parts) < 5 or parts[1] != "proc" or parts[3] != "root":
        return mounts.prepare_bind(source, options)
    flags = kernel.O_RDONLY | kernel.O_CLOEXEC
    own_fd = kernel.open("/proc/self/ns/mnt", flags)
    other_fd = kernel.open(f"/proc/{parts[2]}/ns/mnt", flags)
    kernel.setns(other_fd, kernel.CLONE_NEWNS)
    kernel.close(other_fd)
    try:
        root_fd = kernel.open("/", kernel.O_PATH | kernel.O_CLOEXEC)
        source_fd = inroot.open_in_root(root_fd, parts[4], kernel.O_PATH)
        kernel.close(root_fd)
        tree_fd = mounts.prepare_bind("", options, dirfd=source_fd)
        kernel.close(source_fd)
        return tree_fd
    finally:
        kernel.setns(own_fd, kernel.CLONE_NEWNS)
        kernel.close(own_fd)


def plan(config: Config, bundle: str, trees: dict[int, int]) -> list[Operation]:
    """The operations that turn a mounted root into the container's, in order."""
    operations = []
    linux = config.get("linux", {})
    own_dev = True
    for index, mount in enumerate(config.get("mounts", ())):
        target, fstype = mount["destination"], mount.get("type", "none")
        options = mounts.parse_options(mount.get("options", []))
        if options.bind or fstype == "bind":
            source = os.path.join(bundle, mount["source"])
            arguments: tuple[Any, ...] = (target, source, trees.get(index, -1), options)
            operations.append(Operation(f"bind {source} on {target}", _bind, arguments))
            own_dev = own_dev and target.rstrip("/") != "/dev"
        elif fstype == "cgroup":
            operations.append(Operation(f"show cgroups at {target}", _cgroup, (target, options)))
        else:
            arguments = (target, fstype, mount.get("source", fstype), options)
            operations.append(Operation(f"mount {fstype} on {target}", _filesystem, arguments))
    if own_dev:
        # A node that the user has mounted something on is his.
        taken = {mount["destination"] for mount in config.get("mounts", ())}
        nodes = [node for node in linux.get("devices", ()) if node["path"] not in taken]
        operations.append(Operation("make the devices of /dev", make_devices, (nodes,)))
    if config.get("process", {}).get("terminal"):
        operations.append(Operation("open the container's terminal", _terminal, ()))
    for path in linux.get("maskedPaths") or ():
        operations.append(Operation(f"mask {path}", _mask, (path,)))
    for path in linux.get("readonlyPaths") or ():
        operations.append(Operation(f"make {path} read-only", _read_only, (path,)))
    return operations


def pivot(root: Root) -> None:
    """Make the root this mount namespace's and let go of the host's.

    pivot_root(2) with the same directory twice stacks the old root on the new one, so that no
    directory of the container is needed for it; the lazy umount then drops the whole old tree.
    """
    kernel.fchdir(root.fd)
    kernel.pivot_root(".", ".")
    kernel.umount2(".", kernel.MNT_DETACH)
    kernel.chdir("/")


def make_read_only() -> None:
    """The root mount of this namespace becomes read-only; mounts below it stay as they are."""
    try:
        kernel.mount_setattr(kernel.AT_FDCWD, "/", 0, kernel.MOUNT_ATTR_RDONLY)
    except OSError as failure:
        if failure.errno != errno.ENOSYS:
            raise
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY
        kernel.mount(None, "/", None, flags, None)


def _filesystem(root: Root, target: str, fstype: str, source: str, options: mounts.Options) -> None:
    target_fd = _real_directory(root, target) if fstype in _REAL else root.directory(target)
    try:
        mounts.mount_on(target_fd, fstype, source, options.flags, options.data)
    finally:
        kernel.close(target_fd)
    if options.propagation:
        target_fd = root.directory(target)
        kernel.mount(None, mounts.fd_path(target_fd), None, options.propagation, None)
        kernel.close(target_fd)


def _real_directory(root: Root, target: str) -> int:
    flags = kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_NOFOLLOW
    try:
        return inroot.open_in_root(root.fd, target, flags)
    except FileNotFoundError:
        kernel.close(root.directory(target))
        return inroot.open_in_root(root.fd, target, flags)
    except OSError as failure:
        if failure.errno in (errno.ENOTDIR, errno.ELOOP):
            raise Error(f"{target} of the root file system is a link, not a directory") from None
        raise


def _bind(root: Root, target: str, source: str, tree_fd: int, options: mounts.Options) -> None:
    is_directory = stat.S_ISDIR((os.fstat(tree_fd) if tree_fd >= 0 else os.stat(source)).st_mode)

    def reopen() -> int:
        make = inroot.directory_in_root if is_directory else inroot.file_in_root
        return make(root.fd, target)

    if tree_fd < 0:
        mounts.bind_by_path(source, reopen, options)
        return
    try:
        target_fd = reopen()
    except PermissionError:
        kernel.close(tree_fd)
        if options.optional:
            return
        raise
    try:
        if not is_directory and stat.S_ISDIR(os.fstat(target_fd).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        mounts.attach(tree_fd, target_fd)
    finally:
        kernel.close(target_fd)
        kernel.close(tree_fd)


def _cgroup(root: Root, target: str, options: mounts.Options) -> None:
    target_fd = root.directory(target)
    try:
        if not root.cgroups:
            mounts.mount_on(target_fd, "cgroup2", "cgroup", options.flags)
            return
        flags = options.flags & ~kernel.MS_RDONLY
        mounts.mount_on(target_fd, "tmpfs", "cgroup", flags, "mode=755,size=64k")
    finally:
        kernel.close(target_fd)
    target_fd = root.directory(target)
    for name, directory in root.cgroups:
        if "/" not in directory:
            kernel.symlink(directory, name, dir_fd=target_fd)
            continue
        kernel.mkdir(name, 0o755, dir_fd=target_fd)  # in our own, empty file system
        here_fd = kernel.open(name, kernel.O_PATH | kernel.O_NOFOLLOW, dir_fd=target_fd)
        tree_fd = _tree(directory, options)
        if tree_fd < 0:
            _bind(root, f"{target}/{name}", directory, tree_fd, options)
        else:
            mounts.attach(tree_fd, here_fd)
            kernel.close(tree_fd)
        kernel.close(here_fd)
    if options.flags & kernel.MS_RDONLY:
        remount = kernel.MS_REMOUNT | kernel.MS_BIND | options.flags
        kernel.mount(None, mounts.fd_path(target_fd), None, remount, None)
    kernel.close(target_fd)


def _tree(source: str, options: mounts.Options) -> int:
    try:
        return mounts.prepare_bind(source, options._replace(bind="bind"))
    except OSError as failure:
        if failure.errno == errno.ENOSYS:
            return -1
        raise


def make_devices(root: Root, nodes: list[devices.Device]) -> None:
    dev_fd = root.directory("dev")
    try:
        for device in nodes:
            devices.make(root.fd, dev_fd, device, bind=root.bind_nodes)
        devices.link(dev_fd)
    finally:
        kernel.close(dev_fd)


def _terminal(root: Root) -> None:
    root.master_fd, root.slave_fd = devices.open_terminal(root.fd)
    dev_fd = root.directory("dev")
    try:
        devices.bind_console(dev_fd, root.slave_fd)
    finally:
        kernel.close(dev_fd)


def _mask(root: Root, path: str) -> None:
    try:
        target_fd = inroot.open_in_root(root.fd, path, kernel.O_PATH)
    except OSError as failure:
        if failure.errno in _NO_PATH:
            return
        raise
    is_directory = stat.S_ISDIR(os.fstat(target_fd).st_mode)
    target = mounts.fd_path(target_fd)
    made = root.mask_directory if is_directory else root.mask_file
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NOEXEC
    try:
        if made >= 0:
            # A bind of the first mask, which is read-only already.
            kernel.mount(mounts.fd_path(made), target, None, kernel.MS_BIND, None)
        elif is_directory:
            flags |= kernel.MS_NODEV
            mounts.mount_on(target_fd, "tmpfs", "tmpfs", flags, "nr_inodes=2,size=4k,mode=755")
            root.mask_directory = inroot.open_in_root(root.fd, path, kernel.O_PATH)
        else:
            kernel.mount(mounts.fd_path(root.null_fd), target, None, kernel.MS_BIND, None)
            root.mask_file = inroot.open_in_root(root.fd, path, kernel.O_PATH)
            remount = kernel.MS_REMOUNT | kernel.MS_BIND | flags
            kernel.mount(None, mounts.fd_path(root.mask_file), None, remount, None)
    finally:
        kernel.close(target_fd)


def _read_only(root: Root, path: str) -> None:
    try:
        target_fd = inroot.open_in_root(root.fd, path, kernel.O_PATH)
    except OSError as failure:
        if failure.errno in _NO_PATH:
            return
        raise
    words = ["rbind", "ro", "nosuid", "nodev", "noexec"]
    options = mounts.parse_options(words)
    try:
        tree_fd = _tree(mounts.fd_path(target_fd), options)
        if tree_fd >= 0:
            mounts.attach(tree_fd, target_fd)
            kernel.close(tree_fd)
        else:
            _bind(root, path, mounts.fd_path(target_fd), tree_fd, options)
    finally:
        kernel.close(target_fd)
