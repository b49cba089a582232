"""Opening and making paths beneath a root that a hostile image has filled.

Everything here starts from a descriptor of the root and ends in a descriptor: links are followed
inside that root only, as `chroot` would, and no path string below it reaches an acting call.
openat2(2) with RESOLVE_IN_ROOT does it in the kernel (5.6); before that, a walk by components.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel

_MOST_LINKS = 40  # as the kernel: MAXSYMLINKS


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """A close-on-exec descriptor of `path` as a process whose root is `root_fd` would see it.

    Raises OSError as open(2) does; ELOOP also for a magic link, which is never followed.
    """
    for _ in range(64):  # EAGAIN: something was renamed while ".." was being resolved
        try:
            return kernel.openat2(
                root_fd,
                path.lstrip("/") or ".",
                flags | kernel.O_CLOEXEC,
                mode,
                kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS,
            )
        except OSError as failure:
            if failure.errno == errno.ENOSYS:
                return _walk(root_fd, path, flags, mode)
            if failure.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, "the tree is changing too fast", path)


def directory_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the directory `path`, made with its parents where missing."""
    return _make(root_fd, path, mode, leaf_is_file=False)


def file_in_root(root_fd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of `path`, whatever it is; made as an empty file where missing."""
    return _make(root_fd, path, mode, leaf_is_file=True)


def _make(root_fd: int, path: str, mode: int, *, leaf_is_file: bool) -> int:
    flags = kernel.O_PATH | (0 if leaf_is_file else kernel.O_DIRECTORY)
    path = "/" + "/".join(name for name in path.split("/") if name not in ("", "."))
    try:
        return open_in_root(root_fd, path, flags)
    except FileNotFoundError:
        pass
    for _ in range(_MOST_LINKS):
        fd, parent, names = _missing(root_fd, path)
        try:
            while names:
                _make_one(fd, names[0], mode, is_file=leaf_is_file and len(names) == 1)
                made = kernel.open(names[0], kernel.O_PATH | kernel.O_NOFOLLOW, dir_fd=fd)
                kernel.close(fd)
                fd = made
                parent = f"{parent.rstrip('/')}/{names.pop(0)}"
            return fd
        except FileExistsError:
            # A link to nowhere: make what it points to, as mkdir -p inside the root would.
            target = os.readlink(names[0], dir_fd=fd)
            rest = "/".join(["", *names[1:]])
            path = (target if target.startswith("/") else f"{parent.rstrip('/')}/{target}") + rest
        except BaseException:
            kernel.close(fd)
            raise
        kernel.close(fd)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _missing(root_fd: int, path: str) -> tuple[int, str, list[str]]:
    """The deepest existing directory on the way to `path`, its descriptor first, and the names
    missing below it."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    for count in range(len(names) - 1, -1, -1):
        parent = "/" + "/".join(names[:count])
        try:
            fd = open_in_root(root_fd, parent, kernel.O_PATH | kernel.O_DIRECTORY)
        except FileNotFoundError:
            continue
        return fd, parent, names[count:]
    return open_in_root(root_fd, "/", kernel.O_PATH | kernel.O_DIRECTORY), "/", names


def _make_one(parent_fd: int, name: str, mode: int, *, is_file: bool) -> None:
    if not is_file:
        kernel.mkdir(name, mode, dir_fd=parent_fd)
        return
    flags = kernel.O_CREAT | kernel.O_EXCL | kernel.O_WRONLY | kernel.O_CLOEXEC | kernel.O_NOFOLLOW
    kernel.close(kernel.open(name, flags, mode, dir_fd=parent_fd))


def _walk(root_fd: int, path: str, flags: int, mode: int) -> int:
    """`open_in_root` for kernels without openat2: one O_NOFOLLOW component at a time."""
    pending = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    held = [kernel.open(".", kernel.O_PATH | kernel.O_CLOEXEC, dir_fd=root_fd)]
    links = 0
    try:
        while pending:
            name = pending.pop()
            if name == "..":
                if len(held) > 1:
                    kernel.close(held.pop())
                continue
            if not pending and flags & kernel.O_CREAT:
                return kernel.open(
                    name, flags | kernel.O_NOFOLLOW | kernel.O_CLOEXEC, mode, dir_fd=held[-1]
                )
            found = kernel.open(
                name, kernel.O_PATH | kernel.O_NOFOLLOW | kernel.O_CLOEXEC, dir_fd=held[-1]
            )
            kind = os.fstat(found).st_mode
            follow = pending or not flags & kernel.O_NOFOLLOW
            if not (stat.S_ISLNK(kind) and follow):
                held.append(found)
                continue
            try:
                links += 1
                if links > _MOST_LINKS or kernel.statfs_type(held[-1]) == kernel.PROC_SUPER_MAGIC:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink("", dir_fd=found)
            finally:
                kernel.close(found)
            pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            if target.startswith("/"):
                while len(held) > 1:
                    kernel.close(held.pop())
        if flags & kernel.O_PATH:
            if flags & kernel.O_DIRECTORY and not stat.S_ISDIR(os.fstat(held[-1]).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return kernel.dup(held[-1])
        # The descriptor is pinned, so the magic link leads nowhere else.
        return kernel.open(
            f"/proc/self/fd/{held[-1]}", flags & ~kernel.O_NOFOLLOW | kernel.O_CLOEXEC
        )
    finally:
        for fd in held:
            kernel.close(fd)
