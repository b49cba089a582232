"""The fallback where overlays are refused: the root file system is copied for the container."""

from __future__ import annotations

import os

from minicontainer import kernel, steps
from minicontainer.errors import Error
from minicontainer.paths import Paths
from minicontainer.primitives import trees
from minicontainer.steps import step


def make(paths: Paths, container_id: str, lower: list[str], refused: Error) -> None:
    """Copy the one directory of `lower` to the container's `copy`, which appears when it is whole.

    Other file systems mounted in it and our own state are left out. Warns once.
    """
    if len(lower) != 1:
        raise refused  # an image of several layers cannot do without an overlay
    rootfs = lower[0]
    steps.warn(f"no overlay here, {rootfs} is copied for this container ({refused})")
    unfinished = f"{paths.copy(container_id)}.unfinished"
    name = os.path.basename(unfinished)
    flags = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC
    with step("copy the root file system %s", rootfs):
        bundle_fd = kernel.open(paths.container(container_id), flags)
        source_fd = kernel.open(rootfs, flags)
        try:
            trees.remove_tree(bundle_fd, name)
            kernel.mkdir(name, 0o755, dir_fd=bundle_fd)
            target_fd = kernel.open(name, flags, dir_fd=bundle_fd)
            try:
                own = os.stat(paths.root)
                skip = {(own.st_dev, own.st_ino)}
                trees.copy_tree(source_fd, target_fd, one_file_system=True, skip=skip)
            finally:
                kernel.close(target_fd)
            kernel.rename(unfinished, paths.copy(container_id))
        except BaseException:
            trees.remove_tree(bundle_fd, name)
            raise
        finally:
            kernel.close(source_fd)
            kernel.close(bundle_fd)
