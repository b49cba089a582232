"""inspect: everything known of a container, in the shape of Docker's Engine API.

Names and order of keys are Docker's, so that templates and scripts work; what we do not have has
its zero value.  Ours are `Status` at the top and `Config.Rootfs`.  Nothing is changed.
"""

from __future__ import annotations

import os

from minicontainer import kernel
from minicontainer.engine import times
from minicontainer.errors import Error
from minicontainer.primitives import trees
from minicontainer.runtime import spec
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.engine.records import Container

    Facts = dict[str, Any]

_SHM_BYTES = 64 << 20
_PROPAGATION = ("shared", "slave", "private", "unbindable")
_NO_ADDRESS = {
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "MacAddress": "",
}


def container(container: Container, size: bool = False) -> Facts:
    """What `inspect` shows of a container; `size` adds the bytes of its files.

    A container whose record cannot be read has its id, the reason, and zero values.
    """
    config = _config(container)
    paths, options = container.paths, container.options
    arguments = config.get("process", {}).get("args") or [""]
    etc = paths.etc(container.id)
    log = "" if options.get("log_driver") == "none" else paths.log(container.id)
    found = {
        "Id": container.id,
        "Created": container.record.get("created") or times.ZERO,
        "Path": arguments[0],
        "Args": arguments[1:],
        "State": _state(container),
        "Status": container.status,
        "Image": container.record.get("image") or "",
        "ResolvConfPath": f"{etc}/resolv.conf",
        "HostnamePath": f"{etc}/hostname",
        "HostsPath": f"{etc}/hosts",
        "LogPath": log,
        "Name": f"/{container.name}",
        "RestartCount": container.last.get("restart_count", 0),
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(container, config),
        "GraphDriver": _graph_driver(container),
        "Mounts": [_mount(mount) for mount in options.get("mounts") or ()],
        "Config": _container_config(container, config),
        "NetworkSettings": _network_settings(container),
    }
    if _is_copied(container):
        found["Driver"] = "copy"
    if size:
        found["SizeRw"], found["SizeRootFs"] = sizes(container)
    return found


def sizes(container: Container) -> tuple[int, int]:
    """Bytes that the container has written, and bytes of its whole root file system."""
    with step("measure the files of container %s", container.name):
        base = sum(map(_measure, container.lower))
        if _is_copied(container):
            whole = _measure(container.paths.copy(container.id))
            return max(0, whole - base), whole
        written = _measure(container.paths.upper(container.id))
        return written, base + written


def _measure(path: str | None) -> int:
    """The bytes below a directory; 0 when it is gone."""
    if not path:
        return 0
    flags = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC
    try:
        fd = kernel.open(path, flags)
    except FileNotFoundError:
        return 0
    try:
        return trees.measure(fd)
    finally:
        kernel.close(fd)


def _config(container: Container) -> Facts:
    """The OCI configuration; empty when it cannot be read."""
    try:
        return spec.load(container.paths.config(container.id))
    except (Error, OSError):
        return {}


def _is_copied(container: Container) -> bool:
    return os.path.isdir(container.paths.copy(container.id))


def _state(container: Container) -> Facts:
    status, last = container.status, container.last
    started = (container.state or {}).get("started_at") or last.get("started_at")
    return {
        "Status": status,
        # As Docker has it: a paused and a restarting container count as running, too.
        "Running": status in ("running", "paused", "restarting"),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": bool(last.get("oom_killed")),
        "Dead": status == "broken",
        "Pid": container.pid if status in ("running", "paused") else 0,
        "ExitCode": container.exit_code,
        "Error": container.broken or container.error,
        "StartedAt": started or times.ZERO,
        "FinishedAt": last.get("finished_at") or times.ZERO,
    }


def _host_config(container: Container, config: Facts) -> Facts:
    options = container.options
    linux = config.get("linux", {})
    restart = options.get("restart") or {}
    return {
        "Binds": [_bind(mount) for mount in _mounts(options, "bind")] or None,
        "ContainerIDFile": options.get("cidfile") or "",
        "LogConfig": {
            "Type": options.get("log_driver") or "json-file",
            "Config": {key: str(value) for key, value in (options.get("log_opt") or {}).items()},
        },
        "NetworkMode": options.get("network") or "none",
        "PortBindings": {},
        "RestartPolicy": {
            "Name": restart.get("name") or "no",
            "MaximumRetryCount": restart.get("maximum") or 0,
        },
        "AutoRemove": bool(options.get("rm")),
        "VolumeDriver": "",
        "VolumesFrom": None,
        "CapAdd": options.get("cap_add") or None,
        "CapDrop": options.get("cap_drop") or None,
        "CgroupnsMode": options.get("cgroupns") or "private",
        "Dns": options.get("dns") or [],
        "DnsOptions": options.get("dns_option") or [],
        "DnsSearch": options.get("dns_search") or [],
        "ExtraHosts": options.get("add_host") or None,
        "GroupAdd": options.get("group_add") or None,
        "IpcMode": options.get("ipc") or "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": options.get("oom_score_adj") or 0,
        "PidMode": options.get("pid") or "",
        "Privileged": bool(options.get("privileged")),
        "PublishAllPorts": False,
        "ReadonlyRootfs": bool(options.get("read_only")),
        "SecurityOpt": options.get("security_opt") or None,
        "Tmpfs": {
            mount["destination"]: ",".join(mount.get("options") or ())
            for mount in _mounts(options, "tmpfs")
        },
        "UTSMode": options.get("uts") or "",
        "UsernsMode": options.get("userns") or "",
        "ShmSize": options.get("shm_size") or _SHM_BYTES,
        "Sysctls": options.get("sysctl") or {},
        "Runtime": "minicontainer",
        "Isolation": "",
        **_limits(options, linux),
        "MaskedPaths": linux.get("maskedPaths") or [],
        "ReadonlyPaths": linux.get("readonlyPaths") or [],
    }


def _limits(options: Facts, linux: Facts) -> Facts:
    """The resources of HostConfig; limits that were not asked for are 0, as in Docker."""
    resources = linux.get("resources") or {}
    memory = options.get("memory") or 0
    swap = options.get("memory_swap")
    if swap is None:
        swap = (resources.get("memory") or {}).get("swap") or 0
    return {
        "CpuShares": options.get("cpu_shares") or 0,
        "Memory": memory,
        "NanoCpus": options.get("cpus") or 0,
        "CgroupParent": options.get("cgroup_parent") or "",
        "BlkioWeight": 0,
        "CpuPeriod": options.get("cpu_period") or 0,
        "CpuQuota": options.get("cpu_quota") or 0,
        "CpusetCpus": options.get("cpuset_cpus") or "",
        "CpusetMems": options.get("cpuset_mems") or "",
        "Devices": [
            {
                "PathOnHost": device["host"],
                "PathInContainer": device["container"],
                "CgroupPermissions": device["permissions"],
            }
            for device in options.get("device") or ()
        ],
        "DeviceCgroupRules": options.get("device_cgroup_rule") or None,
        "DeviceRequests": None,
        "MemoryReservation": options.get("memory_reservation") or 0,
        "MemorySwap": swap,
        "MemorySwappiness": None,
        "OomKillDisable": False,
        "PidsLimit": (resources.get("pids") or {}).get("limit", options.get("pids_limit")),
        "Ulimits": [
            {"Name": limit["name"], "Hard": limit["hard"], "Soft": limit["soft"]}
            for limit in options.get("ulimit") or ()
        ],
    }


def _mounts(options: Facts, kind: str) -> list[Facts]:
    return [mount for mount in options.get("mounts") or () if mount["type"] == kind]


def _bind(mount: Facts) -> str:
    """A mount as it was typed after -v."""
    words = ",".join(mount.get("options") or ())
    text = f"{mount['source']}:{mount['destination']}"
    return f"{text}:{words}" if words else text


def _mount(mount: Facts) -> Facts:
    words = mount.get("options") or []
    propagation = [word for word in words if word.startswith("r") and word[1:] in _PROPAGATION]
    bind = mount["type"] == "bind"
    return {
        "Type": mount["type"],
        "Source": mount["source"] if bind else "",
        "Destination": mount["destination"],
        "Mode": ",".join(words),
        "RW": "ro" not in words and "readonly" not in words,
        "Propagation": (propagation or ["rprivate"])[0] if bind else "",
    }


def _graph_driver(container: Container) -> Facts:
    paths, lower = container.paths, ":".join(container.lower)
    if _is_copied(container):
        return {"Data": {"LowerDir": lower, "Dir": paths.copy(container.id)}, "Name": "copy"}
    data = {
        "LowerDir": lower,
        "MergedDir": "",  # mounted nowhere but in the container's own mount namespace
        "UpperDir": paths.upper(container.id),
        "WorkDir": paths.work(container.id),
    }
    return {"Data": data, "Name": "overlay"}


def _container_config(container: Container, config: Facts) -> Facts:
    options = container.options
    process = config.get("process", {})
    attached = not options.get("detach")
    directory = process.get("cwd") or ""
    return {
        "Hostname": config.get("hostname") or options.get("hostname") or os.uname().nodename,
        "Domainname": options.get("domainname") or "",
        "User": options.get("user") or "",
        "AttachStdin": attached and bool(options.get("interactive")),
        "AttachStdout": attached,
        "AttachStderr": attached,
        "ExposedPorts": {},
        "Tty": bool(options.get("tty")),
        "OpenStdin": bool(options.get("interactive")),
        "StdinOnce": attached and bool(options.get("interactive")),
        "Env": process.get("env") or [],
        "Cmd": options.get("command") or None,
        "Image": options.get("image") or "",
        "Rootfs": options.get("rootfs") or "",
        "Volumes": None,
        "WorkingDir": directory if directory != "/" else options.get("workdir") or "",
        "Entrypoint": options.get("entrypoint"),
        "OnBuild": None,
        "Labels": options.get("label") or {},
        "StopSignal": _signal(options.get("stop_signal")),
        "StopTimeout": options.get("stop_timeout"),
    }


def _signal(word: str | None) -> str:
    if not word:
        return "SIGTERM"
    return word if word.isdigit() or word.startswith("SIG") else f"SIG{word}"


def _network_settings(container: Container) -> Facts:
    mode = container.options.get("network") or "none"
    pid = container.pid
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **_NO_ADDRESS,
        "Networks": {
            mode: {
                "IPAMConfig": None,
                "Links": None,
                "Aliases": None,
                "DriverOpts": None,
                "NetworkID": "",
                **_NO_ADDRESS,
                "DNSNames": None,
            }
        },
    }
