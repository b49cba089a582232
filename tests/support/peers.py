"""Other engines, to be measured beside ours: crun, runc and podman as the machine has them.

Each gets the same root filesystem, the same namespaces and a full docker-like seccomp profile
(the one that podman uses, in OCI form), so that the work is comparable.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess

from tests.support import census

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

PROFILE = "/usr/share/containers/seccomp.json"  # golang-github-containers-common

CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
}


def applies(rule: dict[str, Any], machine: str) -> bool:
    """Whether a rule of the profile counts for our capabilities on `machine` (Go's name)."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        all(capability in CAPABILITIES for capability in includes.get("caps", ()))
        and not any(capability in CAPABILITIES for capability in excludes.get("caps", ()))
        and machine in includes.get("arches", [machine])
        and machine not in excludes.get("arches", ())
    )


def seccomp() -> dict[str, Any]:
    """`linux.seccomp` of an OCI configuration; raises FileNotFoundError without the profile."""
    with open(PROFILE, encoding="utf-8") as file:
        profile = json.load(file)
    architecture, machine = MACHINES[os.uname().machine]
    architectures = [architecture]
    for entry in profile["archMap"]:
        if entry["architecture"] == architecture:
            architectures += entry["subArchitectures"]
    rules = []
    for rule in profile["syscalls"]:
        if applies(rule, machine):
            members = ("names", "action", "args", "errnoRet")
            rules.append({key: rule[key] for key in members if rule.get(key)})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": architectures,
        "syscalls": rules,
    }


def configuration(rootfs: str, command: Sequence[str], *, confined: bool) -> dict[str, Any]:
    """A docker-like OCI configuration; `confined` adds the seccomp profile."""
    quiet = ["nosuid", "noexec", "nodev"]
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": False},
        "hostname": "bench",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5".split(),
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": [*quiet, "mode=1777", "size=65536k"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": [*quiet, "relatime", "ro"],
            },
        ],
        "linux": {
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": [
                "/proc/acpi",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ],
        },
    }
    if confined:
        config["linux"]["seccomp"] = seccomp()
    return config


def bundle(base: str, name: str, rootfs: str, command: Sequence[str], *, confined: bool) -> str:
    """A new bundle directory `base`/`name`; its cgroup is called after it."""
    directory = os.path.join(base, name)
    os.makedirs(directory)
    config = configuration(rootfs, command, confined=confined)
    config["linux"]["cgroupsPath"] = f"/mc-bench-{os.path.basename(base)}-{name}"
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    return directory


class Oci:
    """crun or runc with state of its own."""

    def __init__(self, name: str, base: str, rootfs: str) -> None:
        self.name = name
        self.base = base
        self.rootfs = rootfs
        self.argv = [name, "--root", os.path.join(base, "run", f"{name}-state")]
        if name == "crun":
            self.argv.append("--cgroup-manager=cgroupfs")

    def run(self, *command: str, confined: bool = True) -> list[str]:
        """A command line that runs `command` to its end, as often as one likes."""
        name = f"{self.name}-{'confined' if confined else 'open'}"
        directory = os.path.join(self.base, name)
        if not os.path.isdir(directory):
            bundle(self.base, name, self.rootfs, command, confined=confined)
        return [*self.argv, "run", "--bundle", directory, name]

    def start(self, name: str) -> None:
        """A container of that name that sleeps."""
        directory = bundle(self.base, name, self.rootfs, ["sleep", "1000"], confined=True)
        # A bundle's container keeps the streams it is given.
        subprocess.run(
            [*self.argv, "run", "--detach", "--bundle", directory, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def exec(self, name: str, *command: str) -> list[str]:
        return [*self.argv, "exec", name, *command]

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            subprocess.run([*self.argv, "delete", "--force", name], check=False)


class Podman:
    """podman with storage of its own, on cgroupfs, without limits that need CAP_SYS_RESOURCE."""

    name = "podman"

    def __init__(self, base: str, rootfs: str) -> None:
        self.rootfs = rootfs
        self.base = os.path.join(base, "podman")
        volatile = os.path.join(base, "run", "podman")
        self.argv = ["podman", "--root", f"{self.base}/root", "--runroot", f"{volatile}/run"]
        self.argv += ["--tmpdir", f"{volatile}/tmp", "--storage-driver", "overlay"]
        self.argv += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        self.flags = ["--network", "none", "--log-driver", "k8s-file"]
        # Else podman's own parent group, libpod_parent, would stay.
        self.group = f"mc-bench-{os.path.basename(base)}-podman"
        self.flags += ["--cgroup-parent", f"/{self.group}"]
        self.flags += ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=2048:4096"]

    def run(self, *command: str) -> list[str]:
        return [*self.argv, "run", "--rm", *self.flags, "--rootfs", self.rootfs, *command]

    def detach(self, *command: str, name: str = "") -> list[str]:
        named = ["--name", name] if name else []
        return [*self.argv, "run", "-d", *named, *self.flags, "--rootfs", self.rootfs, *command]

    def start(self, name: str) -> None:
        command = self.detach("sleep", "1000", name=name)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def exec(self, name: str, *command: str) -> list[str]:
        return [*self.argv, "exec", name, *command]

    def ps(self) -> list[str]:
        return [*self.argv, "ps"]

    def remove(self, names: Sequence[str]) -> None:
        subprocess.run(
            [*self.argv, "rm", "--force", "--time", "0", *names],
            stdout=subprocess.DEVNULL,
            check=False,
        )

    def close(self) -> None:
        """Give up what podman keeps: mounts below its storage, the parent of its groups."""
        for directory in (f"{self.base}/root/overlay", f"{self.base}/root"):
            subprocess.run(["umount", "--quiet", "--lazy", directory], check=False)
        for mount in census.cgroup_mounts():
            for inner, _, _ in os.walk(os.path.join(mount, self.group), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(inner)


def present(name: str) -> bool:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None
