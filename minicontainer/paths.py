"""Every path that is ours, spelled from two roots; nothing else spells one.

ROOT  (/var/lib/minicontainer, survives a reboot)      RUN  (/run/minicontainer, does not)
  version             the layout's number                containers/<id>/state.json
  containers/<id>/    config.json container.json                         exec.fifo control.fifo
                      last.json upper/ work/ rootfs/                     attach exit stop
                      etc/ copy/ <id>-json.log           locks/<kind>-<name>
  names/<name>        symbolic link to the id            oci/<id>/  state of the `oci` verbs
  images/ layers/     (image store)
  tmp/ trash/         staging, same file system
"""

from __future__ import annotations


class Paths:
    """The places below one pair of roots; both are absolute."""

    __slots__ = ("root", "runroot")

    def __init__(self, root: str, runroot: str) -> None:
        self.root = root
        self.runroot = runroot

    @property
    def version(self) -> str:
        return f"{self.root}/version"

    @property
    def containers(self) -> str:
        return f"{self.root}/containers"

    @property
    def names(self) -> str:
        return f"{self.root}/names"

    @property
    def tmp(self) -> str:
        return f"{self.root}/tmp"

    @property
    def trash(self) -> str:
        return f"{self.root}/trash"

    @property
    def images(self) -> str:
        return f"{self.root}/images"

    @property
    def layers(self) -> str:
        return f"{self.root}/layers"

    @property
    def volumes(self) -> str:
        return f"{self.root}/volumes"

    @property
    def locks(self) -> str:
        return f"{self.runroot}/locks"

    @property
    def running(self) -> str:
        """The parent of all volatile container directories."""
        return f"{self.runroot}/containers"

    def name(self, name: str) -> str:
        return f"{self.root}/names/{name}"

    def container(self, container_id: str) -> str:
        """The bundle: what survives a reboot."""
        return f"{self.root}/containers/{container_id}"

    def config(self, container_id: str) -> str:
        return f"{self.root}/containers/{container_id}/config.json"

    def record(self, container_id: str) -> str:
        return f"{self.root}/containers/{container_id}/container.json"

    def last(self, container_id: str) -> str:
        """When the container last started and how it last ended."""
        return f"{self.root}/containers/{container_id}/last.json"

    def upper(self, container_id: str) -> str:
        return f"{self.root}/containers/{container_id}/upper"

    def work(self, container_id: str) -> str:
        return f"{self.root}/containers/{container_id}/work"

    def rootfs(self, container_id: str) -> str:
        """The mount point of the overlay, empty outside the container's mount namespace."""
        return f"{self.root}/containers/{container_id}/rootfs"

    def copy(self, container_id: str) -> str:
        """The copied root file system of a container on a host that refuses overlays."""
        return f"{self.root}/containers/{container_id}/copy"

    def etc(self, container_id: str) -> str:
        """Our hosts, hostname and resolv.conf."""
        return f"{self.root}/containers/{container_id}/etc"

    def log(self, container_id: str) -> str:
        return f"{self.root}/containers/{container_id}/{container_id}-json.log"

    def run(self, container_id: str) -> str:
        """The container's volatile directory: present means started since the boot."""
        return f"{self.runroot}/containers/{container_id}"

    def state(self, container_id: str) -> str:
        return f"{self.runroot}/containers/{container_id}/state.json"

    def attach(self, container_id: str) -> str:
        return f"{self.runroot}/containers/{container_id}/attach"

    def exit(self, container_id: str) -> str:
        """Empty while the container runs; its monitor writes the exit code for who waits."""
        return f"{self.runroot}/containers/{container_id}/exit"

    def stop(self, container_id: str) -> str:
        """Present when somebody asked for a stop: no restart policy applies."""
        return f"{self.runroot}/containers/{container_id}/stop"

    def policy(self, container_id: str) -> str:
        """Present when `update` has changed the container under its monitor; the restart policy."""
        return f"{self.runroot}/containers/{container_id}/policy"

    def lock(self, kind: str, name: str) -> str:
        """The file to flock for one object of a kind: store, container, network."""
        return f"{self.runroot}/locks/{kind}-{name}"
