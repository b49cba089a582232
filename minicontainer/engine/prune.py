"""Removal of what nothing refers to: the remains of processes of ours that were killed.

Whatever is made for a container carries its id.  A thing is garbage if no container has that id
(`records.exists`: also a directory without a record, left by a crash of the host) and no maker is
at work on one: a maker holds a lock on its staging directory (`records`).  As makers may not have
taken their lock yet, garbage is only what is garbage at two moments half a second apart.  Images
without a name, layers and blobs are garbage unless a container stands on them (`images.in_use`).
Not for: volumes.
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer import kernel, steps
from minicontainer.engine import records, task, times, userids
from minicontainer.errors import Error
from minicontainer.primitives import cgroups, trees
from minicontainer.runtime import state as facts
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable, Iterable

    from minicontainer.engine.records import Container
    from minicontainer.image.store import Image
    from minicontainer.paths import Paths

    Filter = tuple[str, object]
else:
    from minicontainer.tuples import namedtuple

_GROUPS = "/minicontainer"
_PAUSE_SECONDS = 0.5
_STALE_SECONDS = 60.0
_DIRECTORY = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_NOFOLLOW | kernel.O_CLOEXEC

# kind, name: what to tell the user; place: an id, or the name in its directory.
_Garbage = namedtuple("_Garbage", "kind name place")


def prune(
    paths: Paths,
    *,
    all_containers: bool,
    dry_run: bool,
    filters: Iterable[Filter] = (),
    all_images: bool = False,
    garbage: bool = True,
    dangling: bool = True,
) -> list[tuple[str, str, int]]:
    """Remove garbage, and stopped containers if so asked; (kind, name, bytes) of each.

    filters: ("until", seconds since 1970), ("label", "K" or "K=V"), ("label!", the same); they
    choose among the containers and images.  all_images: those with a name too, if no container
    stands on them; dangling: those without one, and what no image reaches.  garbage: all the rest.
    dry_run: only tell.  What cannot be removed is a warning.
    """
    removed = []
    filters = list(filters)
    kept = []
    for container in records.load_all(paths):
        if not (all_containers and _is_stopped(container) and _chosen(container, filters)):
            kept.append(container)
            continue
        size = _size(paths.containers, container.id)
        if dry_run or _tried(_remove_container, container):
            removed.append(("container", container.name or container.id[:12], size))
        else:
            kept.append(container)
    for found in _settled(paths) if garbage else ():
        size = _size(_home(paths, found), found.place)
        if dry_run or _tried(_REMOVERS[found.kind], paths, found.place):
            removed.append((found.kind, found.name, size))
    if dangling and os.path.isdir(f"{paths.images}/blobs"):
        try:
            removed += _images(paths, kept, filters, all_images=all_images, dry_run=dry_run)
        except (Error, OSError) as failure:
            steps.warn(f"not removed: {failure}")
    return removed


def reap_trash(paths: Paths, limit: int | None = None) -> None:
    """Delete what lies in the trash, at most `limit` entries; may run many times at once.

    Raises KernelError for the first entry that cannot be deleted, after the others.
    """
    with step("empty the trash %s", paths.trash):
        try:
            trash_fd = kernel.open(paths.trash, _DIRECTORY)
        except FileNotFoundError:
            return
        first: OSError | None = None
        try:
            for name in sorted(os.listdir(trash_fd))[:limit]:
                try:
                    _delete(paths, trash_fd, name)
                except OSError as failure:
                    first = first or failure
        finally:
            kernel.close(trash_fd)
        if first is not None:
            raise first


def reap_in_background(paths: Paths) -> None:
    """Empty the trash in a process of its own, which outlives this one; one at a time does it."""
    try:
        trash_fd = kernel.open(paths.trash, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        kernel.flock(trash_fd, kernel.LOCK_EX | kernel.LOCK_NB)
    except BlockingIOError:
        kernel.close(trash_fd)
        return
    try:
        pid = kernel.fork()
    except OSError:  # the next prune or rm does it
        kernel.close(trash_fd)
        return
    if pid:
        kernel.close(trash_fd)
        return
    try:
        _leave_caller(trash_fd)
        for name in os.listdir(trash_fd):
            try:
                _delete(paths, trash_fd, name)
            except OSError:
                continue
    finally:
        os._exit(0)


def _delete(paths: Paths, trash_fd: int, name: str) -> None:
    """Delete one entry of the trash. Raises OSError."""
    linux = userids.mappings(f"{paths.trash}/{name}/config.json")
    if userids.has_ranges(linux):
        userids.call(linux, lambda: _delete_files(trash_fd, name))
    trees.remove_tree(trash_fd, name)


def _delete_files(trash_fd: int, name: str) -> None:
    """Delete all but what says whose files they are: this may end early and be repeated."""
    fd = trees.open_entry(trash_fd, name, kernel.O_DIRECTORY)
    for inner in os.listdir(fd):
        if inner != "config.json":
            trees.remove_tree(fd, inner)


def _leave_caller(kept_fd: int) -> None:
    """Let go of the caller's terminal, session and descriptors: nobody may wait for us."""
    steps.role = "reaper"
    kernel.setsid()
    null_fd = kernel.open("/dev/null", kernel.O_RDWR | kernel.O_CLOEXEC)
    for fd in (0, 1, 2):
        kernel.dup2(null_fd, fd)
    kernel.chdir("/")
    for first, last in ((3, kept_fd - 1), (kept_fd + 1, 0xFFFFFFFF)):
        if first <= last:
            try:
                kernel.close_range(first, last)
            except OSError:  # before Linux 5.9
                os.closerange(first, min(last, os.sysconf("SC_OPEN_MAX")) + 1)


# ------------------------------------------------------------------------------ containers


def _is_stopped(container: Container) -> bool:
    return not container.running and not container.monitored


def _chosen(container: Container, filters: Iterable[Filter]) -> bool:
    labels = container.options.get("label") or {}
    for key, value in filters:
        if key == "until":
            created = times.seconds(str(container.record.get("created", "")))
            assert isinstance(value, (int, float))
            if container.broken or created >= value:
                return False
        else:
            name, equals, wanted = str(value).partition("=")
            fits = name in labels and (not equals or labels[name] == wanted)
            if fits == (key == "label!"):
                return False
    return True


def _remove_container(container: Container) -> None:
    from minicontainer.engine import control

    control.remove(container)


def _tried(act: Callable[..., None], *arguments: object) -> bool:
    try:
        act(*arguments)
        return True
    except (Error, OSError) as failure:
        steps.warn(f"not removed: {failure}")
        return False


def _size(parent: str, name: str) -> int:
    """The bytes below a directory's entry, as far as they can be read."""
    try:
        fd = kernel.open(f"{parent}/{name}", _DIRECTORY)
    except OSError:
        return 0
    try:
        return trees.measure(fd)
    except OSError:
        return 0
    finally:
        kernel.close(fd)


# ------------------------------------------------------------------------------ images


def _images(
    paths: Paths,
    containers: list[Container],
    filters: Iterable[Filter],
    *,
    all_images: bool,
    dry_run: bool,
) -> list[tuple[str, str, int]]:
    """Remove the images that nothing needs, and the blobs and layers that none reaches."""
    from minicontainer.engine import images
    from minicontainer.image import garbage

    store = images.open_store(paths)
    needed = images.in_use(containers)
    unused = [
        image
        for image in store.images()
        if image.id not in needed
        and (all_images or not image.names)
        and _image_chosen(image, filters)
    ]
    removed: list[tuple[str, str, int]] = []
    for image in unused:
        if not dry_run:
            store.remove(image)
        shown = images.familiar(image.names[0]) if image.names else (image.id or image.digest)[7:19]
        removed.append(("image", shown, 0))
    if dry_run:
        gone = {image.digest for image in unused}
        return removed + _shortened(garbage.collectable(store, needed, gone))
    removed += _shortened(images.collect(paths, store))
    removed += garbage.discard_damaged(store)
    reap_trash(paths)
    return removed


def _shortened(found: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    return [(kind, name[7:19], size) for kind, name, size in found]


def _image_chosen(image: Image, filters: Iterable[Filter]) -> bool:
    from minicontainer.engine import images

    labels = (image.config.get("config") or {}).get("Labels") or {}
    for key, value in filters:
        if key == "until":
            assert isinstance(value, (int, float))
            if images.moment(image.created) >= value:
                return False
        else:
            name, equals, wanted = str(value).partition("=")
            fits = name in labels and (not equals or labels[name] == wanted)
            if fits == (key == "label!"):
                return False
    return True


# ------------------------------------------------------------------------------ garbage


def _settled(paths: Paths) -> list[_Garbage]:
    """What is garbage now and still is after a pause."""
    before = _found(paths)
    if all(garbage.kind == "trash" for garbage in before):
        return before
    time.sleep(_PAUSE_SECONDS)
    now = set(_found(paths))
    return [garbage for garbage in before if garbage in now]


def _found(paths: Paths) -> list[_Garbage]:
    found = []
    for name in _names(paths.tmp):
        if _is_abandoned(f"{paths.tmp}/{name}"):
            found.append(_Garbage("staging", name[:12] if _is_id(name) else name, name))
    for name in _names(paths.containers):
        if _is_id(name) and not _has_owner(paths, name):
            found.append(_Garbage("unfinished", name[:12], name))
    for name in _names(paths.names):
        holder = _holder(paths, name)
        if holder is not None and not _has_owner(paths, holder):
            found.append(_Garbage("name", name, name))
    for name in _names(paths.running):
        if not _has_owner(paths, name) and not _is_in_use(paths, name):
            if _group(paths, name) is not None:
                found.append(_Garbage("cgroup", _group_path(paths, name), name))
            found.append(_Garbage("state", name[:12], name))
    found += [_Garbage("trash", name[:12], name) for name in _names(paths.trash)]
    return found


def _home(paths: Paths, garbage: _Garbage) -> str:
    return {
        "staging": paths.tmp,
        "unfinished": paths.containers,
        "trash": paths.trash,
        "state": paths.running,
    }.get(garbage.kind, paths.names)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _is_id(name: str) -> bool:
    return len(name) == 64 and not name.strip("0123456789abcdef")


def _has_owner(paths: Paths, container_id: str) -> bool:
    """Whether there is a container of this id, or somebody is making one."""
    if records.exists(paths, container_id):
        return True
    for directory in (f"{paths.tmp}/{container_id}", paths.container(container_id)):
        if os.path.lexists(directory):
            return not _is_abandoned(directory) or records.exists(paths, container_id)
    return False


def _is_abandoned(path: str) -> bool:
    """Whether a thing in tmp/ or containers/ has lost its maker: its lock is free, or it is old."""
    try:
        fd = kernel.open(path, _DIRECTORY)
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            return False
        if failure.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        return _is_old(path)
    try:
        kernel.flock(fd, kernel.LOCK_EX | kernel.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        kernel.close(fd)


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.lstat(path).st_ctime > _STALE_SECONDS
    except FileNotFoundError:
        return False


def _holder(paths: Paths, name: str) -> str | None:
    try:
        return os.readlink(paths.name(name))
    except OSError:
        return None


def _is_in_use(paths: Paths, container_id: str) -> bool:
    """Whether a process or monitor of a container without a record is alive."""
    try:
        state = facts.load(paths.run(container_id))
    except Error:
        return False
    return facts.is_alive(state) or facts.is_alive(state, "monitor_")


def _group_path(paths: Paths, container_id: str) -> str:
    try:
        state = facts.load(paths.run(container_id))
    except Error:
        state = None
    return str((state or {}).get("cgroup") or f"{_GROUPS}/{container_id}")


def _group(paths: Paths, container_id: str) -> cgroups.Group | None:
    """The group that a leftover volatile directory of ours stands for, if it has no process.

    Never one without such a directory: another engine, with roots of its own, may be about to
    move its container there.  A maker makes the directory first and removes it last.
    """
    layout = cgroups.detect()
    if layout.mode == "none" or not _is_id(container_id):
        return None
    group = cgroups.open_group(layout, _group_path(paths, container_id))
    there = any(os.path.isdir(path) for path in group.directories().values())
    return group if there and group.empty() else None


def _remove_staging(paths: Paths, name: str) -> None:
    """Nothing has run in it, so all of it is ours."""
    with step("remove %s/%s", paths.tmp, name):
        fd = kernel.open(paths.tmp, _DIRECTORY)
        try:
            trees.remove_tree(fd, name)
        finally:
            kernel.close(fd)


def _remove_trash(paths: Paths, name: str) -> None:
    with step("remove %s/%s", paths.trash, name):
        fd = kernel.open(paths.trash, _DIRECTORY)
        try:
            _delete(paths, fd, name)
        finally:
            kernel.close(fd)


def _remove_unfinished(paths: Paths, name: str) -> None:
    with step("remove %s", paths.container(name)):
        kernel.rename(paths.container(name), f"{paths.trash}/{name}")
    _remove_trash(paths, name)


def _remove_name(paths: Paths, name: str) -> None:
    holder = _holder(paths, name)
    if holder is not None and not _has_owner(paths, holder):
        records.release_name(paths, name, holder)


def _remove_state(paths: Paths, name: str) -> None:
    with step("remove %s", paths.run(name)):
        task.remove_volatile(paths.run(name))


def _remove_group(paths: Paths, name: str) -> None:
    group = _group(paths, name)
    if group is not None:
        group.delete()


_REMOVERS = {
    "staging": _remove_staging,
    "unfinished": _remove_unfinished,
    "name": _remove_name,
    "state": _remove_state,
    "cgroup": _remove_group,
    "trash": _remove_trash,
}
