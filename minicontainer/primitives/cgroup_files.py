"""Control files and directories of one control group, alike in cgroup v1 and v2: cgroups(7).

Reading and parsing, walking nested groups, making and removing directories.  What the files of
the two versions are called and mean is in `cgroup_v1` and `cgroup_v2`.
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def read(path: str) -> str:
    """The text of a control file, without the newline at its end; OSError as open(2) gives it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        chunks = [os.read(fd, 65536)]
        while chunks[-1]:
            chunks.append(os.read(fd, 65536))
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="surrogateescape").rstrip("\n")


def read_or_empty(path: str) -> str:
    """As `read`; nothing where there is no such file, or its group goes away meanwhile."""
    try:
        return read(path)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return ""


def number(path: str, absent: int = 0) -> int:
    """The number in a control file; -1 for `max`, `absent` where there is no such file."""
    text = read_or_empty(path)
    if text == "max":
        return -1
    return int(text) if text else absent


def flat(path: str) -> dict[str, int]:
    """The `key number` lines of a control file; nothing where there is no such file."""
    pairs = (line.split() for line in read_or_empty(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def subtree(directory: str) -> list[str]:
    """`directory` and all groups below it, each after its parent; nothing if it is not there."""
    try:
        with os.scandir(directory) as entries:
            nested = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [directory, *(path for child in nested for path in subtree(child))]


def members(directory: str) -> set[int]:
    """Process ids in the group and all groups below it; 0 stands for those we cannot name.

    Such are processes of a pid namespace that is not below ours.  Zombies are not listed.
    """
    return {
        int(line)
        for group in subtree(directory)
        for line in read_or_empty(f"{group}/cgroup.procs").splitlines()
    }


def make(base: str, path: str, prepare: Callable[[str], None]) -> bool:
    """Make the group `path` below `base` and the parents it lacks; True if it was not there.

    `prepare` is called for each parent that was made.
    """
    while True:
        try:
            kernel.mkdir(base + path, 0o755)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Again also where another process took the parent away between the two calls.
            parent = path.rpartition("/")[0]
            if not parent:
                raise
            if make(base, parent, prepare):
                prepare(base + parent)
        else:
            return True


def remove(directory: str, deadline: float) -> None:
    """Remove the group and all groups below it, deepest first; it may be gone already.

    The kernel answers EBUSY as long as a process is in it, a dying one included, hence the
    retries until the monotonic time `deadline`; then the OSError goes up.
    """
    pause = 0.0
    while True:
        try:
            kernel.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as failure:
            if failure.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(max(2 * pause, 0.001), 0.064)
        for nested in reversed(subtree(directory)[1:]):
            try:
                kernel.rmdir(nested)
            except OSError as failure:
                if failure.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                    raise
