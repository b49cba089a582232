"""cp and export: a container's files from outside, as docker-cp(1) has it.

Every path on the container's side is resolved beneath its root, so a link there leads where the
container would follow it and never to the host; names found in it are used one at a time, below
directory descriptors.  What a copy is made of is in `copies`, the tar streams in `archive`.

    SRC     what is copied              DST is missing     DST is a directory   DST is a file
    file    it                          becomes DST        DST/SRC              replaced
    dir     the directory               becomes DST        DST/SRC              error
    dir/.   all in the directory        becomes DST        merged into DST      error
"""

from __future__ import annotations

import errno
import os
import stat
from collections import namedtuple
from contextlib import ExitStack, contextmanager

from minicontainer import kernel, steps
from minicontainer.engine import archive, rootfs, userids
from minicontainer.engine.changes import diff as diff
from minicontainer.errors import Error, NotFound
from minicontainer.primitives import copies, inroot, mounts, trees
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minicontainer.engine.records import Container

_MOST_LINKS = 40
_DIRECTORY = kernel.O_PATH | kernel.O_DIRECTORY

# What a path leads to: an entry `name` of an open directory; status is None for nothing yet.
_Found = namedtuple("_Found", "directory_fd name status")


def copy(
    container: Container,
    source: str,
    destination: str,
    *,
    to_container: bool,
    follow_link: bool = False,
    archive: bool = False,
    quiet: bool = False,
) -> None:
    """Copy `source` to `destination`, one of them in the container; "-" is a tar stream.

    follow_link: copy what a link at `source` points to. archive: keep owners and extended
    attributes; otherwise all belongs to the container's root, or to the caller on the host.
    Raises NotFound, Error.
    """
    inside = f"{container.name}:{destination if to_container else source}"
    with rootfs.opened(container) as root_fd:
        userids.join(container)
        ends = [_Host(), _Inside(container, root_fd)]
        try:
            if to_container and source == "-":
                _unpack(ends[1], destination)
            elif not to_container and destination == "-":
                _pack(ends[1], source, follow_link)
            else:
                origin, target = ends if to_container else reversed(ends)
                manner = copies.Manner((os.geteuid(), os.getegid()), False, 0o600)
                if archive:
                    manner = copies.EXACT
                elif to_container:
                    manner = manner._replace(device_mode=0o7777)
                _copy(origin, source, target, destination, manner, follow_link)
        except OSError as failure:
            if failure.errno == errno.EROFS and to_container:
                raise Error("mounted volume is marked read-only") from failure
            with step("copy %s %s", "to" if to_container else "from", inside):
                raise


def export(container: Container, write_fd: int) -> None:
    """Write the container's root file system as a tar stream, without what is mounted in it."""
    with step("export container %s", container.name):
        with rootfs.opened(container, volumes=False) as root_fd:
            userids.join(container)
            with _bare(container, root_fd) as top_fd, archive.Writer(write_fd) as writer:
                if _is_split(container, root_fd):
                    writer.tree(top_fd, skip=_mount_points(container, root_fd))
                else:
                    writer.tree(top_fd, cross=False)


# ------------------------------------------------------------------------------ the two ends


class _Host:
    """The host's end of a copy."""

    root_fd = -1

    def normal(self, path: str) -> str:
        return os.path.normpath(path if path.startswith("/") else os.path.join(os.getcwd(), path))

    def open(self, path: str, flags: int) -> int:
        return kernel.open(path, flags | kernel.O_CLOEXEC)

    def missing(self, path: str) -> Error:
        return NotFound(f"no such file or directory: {path}")

    def skipped(self) -> set[tuple[int, int]]:
        """Directories whose contents are not copied."""
        return set()

    def check_writable(self, found: _Found) -> None:
        """Raise Error if nothing may be written there."""


class _Inside(_Host):
    """The container's end of a copy."""

    def __init__(self, container: Container, root_fd: int) -> None:
        self.container = container
        self.root_fd = root_fd

    def normal(self, path: str) -> str:
        return os.path.normpath("/" + path.lstrip("/"))

    def open(self, path: str, flags: int) -> int:
        return inroot.open_in_root(self.root_fd, path, flags)

    def missing(self, path: str) -> Error:
        return NotFound(f"Could not find the file {path} in container {self.container.name}")

    def skipped(self) -> set[tuple[int, int]]:
        return _kernel_mounts(self.root_fd)

    def check_writable(self, found: _Found) -> None:
        # Stopped, the root is mounted for us alone, and writable. All directories of an overlay
        # have one device number, and no mount in it has the same.
        fd = found.directory_fd
        if found.status is not None and stat.S_ISDIR(found.status.st_mode):
            device = found.status.st_dev
        else:
            device = os.fstat(fd).st_dev
        read_only = self.container.options.get("read_only")
        if read_only and device == os.fstat(self.root_fd).st_dev:
            raise Error("container rootfs is marked read-only")


def _kernel_mounts(root_fd: int) -> set[tuple[int, int]]:
    """The identities of /proc, /sys and /dev where they are mounts of a running container."""
    top = os.fstat(root_fd).st_dev
    found = set()
    for path in ("/proc", "/sys", "/dev"):
        status = _directory_status(root_fd, path)
        if status is not None and status.st_dev != top:
            found.add(trees.identity(status))
    return found


def _directory_status(root_fd: int, path: str) -> os.stat_result | None:
    try:
        fd = inroot.open_in_root(root_fd, path, _DIRECTORY | kernel.O_NOFOLLOW)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        return None
    try:
        return os.fstat(fd)
    finally:
        kernel.close(fd)


@contextmanager
def _located(end: _Host, path: str, *, follow: bool) -> Iterator[_Found]:
    """What a normal absolute path leads to, through a link at its end only if `follow`.

    Raises NotFound when the directory it would be in is missing.
    """
    fds = []
    try:
        for _ in range(_MOST_LINKS):
            above, _, name = path.rstrip("/").rpartition("/")
            if name in ("", ".", ".."):
                fds.append(_opened_directory(end, path or "/"))
                yield _Found(fds[-1], ".", os.fstat(fds[-1]))
                return
            fds.append(_opened_directory(end, above or "/"))
            status = None
            try:
                status = os.stat(name, dir_fd=fds[-1], follow_symlinks=False)
            except FileNotFoundError:
                pass
            if status is None or not (follow and stat.S_ISLNK(status.st_mode)):
                yield _Found(fds[-1], name, status)
                return
            target = os.readlink(name, dir_fd=fds[-1])
            path = target if target.startswith("/") else f"{above}/{target}"
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    finally:
        for fd in fds:
            kernel.close(fd)


def _opened_directory(end: _Host, path: str) -> int:
    try:
        return end.open(path, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise end.missing(path) from None


# ------------------------------------------------------------------------------ paths to paths


def _copy(
    origin: _Host,
    source: str,
    target: _Host,
    destination: str,
    manner: copies.Manner,
    follow: bool,
) -> None:
    base = os.path.basename(origin.normal(source))
    contents = _means_contents(source) or not base
    with _source(origin, source, follow) as found:
        directory = stat.S_ISDIR(found.status.st_mode)
        with _located(target, target.normal(destination), follow=True) as there:
            target.check_writable(there)
            skip = {*origin.skipped(), *_own_state(target)}
            if not _goes_into(there, destination, directory) or (directory and contents):
                merged = there.status is not None
                _transfer(found, there.directory_fd, there.name, manner, skip, contents=merged)
                return
            fd = trees.open_entry(there.directory_fd, there.name, _DIRECTORY)
            try:
                _transfer(found, fd, base, manner, skip, contents=False)
            finally:
                kernel.close(fd)


@contextmanager
def _source(origin: _Host, source: str, follow: bool) -> Iterator[_Found]:
    """What is to be copied. Raises NotFound; Error for a file where a directory was meant."""
    wants_directory = source.endswith("/") or _means_contents(source)
    with _located(origin, origin.normal(source), follow=follow or wants_directory) as found:
        if found.status is None:
            raise origin.missing(source)
        if wants_directory and not stat.S_ISDIR(found.status.st_mode):
            raise Error(f"{source} is not a directory")
        yield found


def _means_contents(path: str) -> bool:
    return os.path.basename(path) == "."


def _goes_into(there: _Found, destination: str, directory: bool) -> bool:
    """Whether DST is a directory that gets a new entry; if not, DST itself is what is made.

    A trailing slash means that DST must be a directory. Raises NotFound, Error.
    """
    wants_directory = destination.endswith("/") or _means_contents(destination)
    if there.status is None:
        if wants_directory and not directory:
            raise NotFound(f"the directory {destination} does not exist")
        return False
    if stat.S_ISDIR(there.status.st_mode):
        return True
    if directory:
        raise Error(f"cannot copy a directory to the file {destination}")
    if wants_directory:
        raise Error(f"{destination} is not a directory")
    return False


def _own_state(target: _Host) -> set[tuple[int, int]]:
    """The container's own directory: copied into the container, it would grow for ever."""
    if not isinstance(target, _Inside):
        return set()
    return {trees.identity(os.stat(target.container.paths.container(target.container.id)))}


def _transfer(
    found: _Found,
    directory_fd: int,
    name: str,
    manner: copies.Manner,
    skip: set[tuple[int, int]],
    *,
    contents: bool,
) -> None:
    """Copy what was found to the entry `name`; of a directory only the `contents`, if so wanted."""
    if not stat.S_ISDIR(found.status.st_mode):
        copies.copy_entry(found.directory_fd, found.name, directory_fd, name, manner)
        return
    if name != ".":
        copies.make_directory(directory_fd, name)
    with ExitStack() as stack:
        fds = []
        for above, entry in ((found.directory_fd, found.name), (directory_fd, name)):
            fds.append(trees.open_entry(above, entry, kernel.O_DIRECTORY))
            stack.callback(kernel.close, fds[-1])
        left_out = copies.copy(fds[0], fds[1], manner, skip=skip)
        if not contents:
            wear = copies.attributes(f"/proc/self/fd/{fds[0]}", found.status, manner)
            copies.dress(fds[1], wear)
    for path in left_out:
        steps.warn(f"{path}: this user may not make device nodes, it was left out")


# ------------------------------------------------------------------------------ tar streams


def _pack(origin: _Host, source: str, follow: bool) -> None:
    path = origin.normal(source)
    base = "." if _means_contents(source) else os.path.basename(path) or "."
    with _source(origin, source, follow) as found, archive.Writer(1) as writer:
        writer.entry(found.directory_fd, found.name, base)
        if stat.S_ISDIR(found.status.st_mode):
            source_fd = trees.open_entry(found.directory_fd, found.name, kernel.O_DIRECTORY)
            try:
                writer.tree(source_fd, f"{base}/", skip=origin.skipped())
            finally:
                kernel.close(source_fd)


def _unpack(target: _Host, destination: str) -> None:
    path = target.normal(destination)
    with _located(target, path, follow=True) as there:
        if there.status is None:
            raise target.missing(destination)
        if not stat.S_ISDIR(there.status.st_mode):
            raise Error(f'destination "{destination}" must be a directory')
        target.check_writable(there)
    archive.unpack(0, target.root_fd, path)


# ------------------------------------------------------------------------------ export


@contextmanager
def _bare(container: Container, root_fd: int) -> Iterator[int]:
    """The root without the mounts below it, or as it is where the kernel cannot show it so."""
    if container.running:
        fd = _cloned_inside(container.pid, root_fd)
    else:
        fd = _cloned(root_fd)
    try:
        yield root_fd if fd < 0 else fd
    finally:
        if fd >= 0:
            kernel.close(fd)


def _cloned(root_fd: int) -> int:
    try:
        return mounts.clone("", dirfd=root_fd, recursive=False)
    except OSError:  # no privilege, mounts that may not be uncovered, before Linux 5.2
        return -1


def _cloned_inside(pid: int, root_fd: int) -> int:
    """As `_cloned`, by a child of ours: a mount can be cloned only in its own mount namespace."""
    own_end, other_end = kernel.socketpair()
    try:
        namespace_fd = kernel.open(f"/proc/{pid}/ns/mnt", kernel.O_RDONLY | kernel.O_CLOEXEC)
    except OSError:
        kernel.close(own_end)
        kernel.close(other_end)
        return -1
    child = kernel.fork()
    if child == 0:
        try:
            kernel.setns(namespace_fd, kernel.CLONE_NEWNS)
            fd = _cloned(root_fd)
            kernel.send_message(other_end, b"mount", [fd] if fd >= 0 else [])
        finally:
            os._exit(0)
    for fd in (namespace_fd, other_end):
        kernel.close(fd)
    received = kernel.receive_message(own_end)[1]
    kernel.close(own_end)
    kernel.waitpid(child, 0)
    return received[0] if received else -1


def _is_split(container: Container, root_fd: int) -> bool:
    """Whether each top directory is an overlay of its own: an ordinary user's `--rootfs /`."""
    if container.options.get("rootfs") != "/":
        return False
    copied = os.path.isdir(container.paths.copy(container.id))
    return not copied and kernel.statfs_type(root_fd) != kernel.OVERLAYFS_SUPER_MAGIC


def _mount_points(container: Container, root_fd: int) -> set[tuple[int, int]]:
    """The identities of the directories on which the container's configuration mounts."""
    found = _kernel_mounts(root_fd)
    for mount in container.options.get("mounts") or ():
        status = _directory_status(root_fd, mount["destination"])
        if status is not None:
            found.add(trees.identity(status))
    return found
