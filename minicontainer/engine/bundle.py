"""A container's `config.json` out of the user's options and the image: `compose`.

Pure: no file is read and nothing is asked of the kernel; what the host is like comes in as facts.
Here are the process, the names, the capabilities and the namespaces; `bundle_mounts` has the file
tree, `bundle_limits` the resources.  Not for: what OCI has no word for (`records`), nor for looking
a user up by name, which the runtime does inside the container's root.
"""

from __future__ import annotations

import os

from minicontainer.engine import bundle_limits, bundle_mounts
from minicontainer.errors import UsageError
from minicontainer.primitives import capabilities, credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minicontainer.paths import Paths
    from minicontainer.runtime.spec import Capabilities, Linux, Namespace, Process, User

OCI_VERSION = "1.2.0"
HOSTNAME = "minicontainer"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK = 0o022

# `linux.seccomp` will be a member of what `_linux` returns; until it is, nothing is filtered.
SECCOMP_PROFILE = None

# The option that chooses each namespace, and whether there is one of our own without it.
_NAMESPACES = (
    ("pid", "pid"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("network", "network"),
    ("cgroup", "cgroupns"),
)
# Options that ask for less confinement by a mechanism that does not confine yet.
_NO_EFFECT = ("seccomp=unconfined", "apparmor=unconfined", "label=disable")


def compose(
    container_id: str,
    options: Mapping[str, Any],
    *,
    paths: Paths,
    host: Mapping[str, Any],
    image_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The OCI runtime configuration of a container. Raises UsageError for what cannot be meant.

    options: as in container.json. image_config: the `config` member of an OCI image configuration.
    host: facts, all optional:
      bounding       the capabilities we can grant, as a mask
      rootless       whether we lack root on the host
      hostname       the host's, for HOSTNAME where the container shares it
      namespaces     type -> path of the namespaces to join (`container:X`, a prepared network)
      uid_mappings, gid_mappings   OCI's form; not empty means a new user namespace
      shm            the directory to bind at /dev/shm instead of a new one (`--ipc container:X`)
      mqueue         whether the host has a /dev/mqueue to bind where we may not mount one
      cgroup_mode    v1, v2, hybrid or none
      recursive_readonly   whether `ro` on a bind can cover what is mounted below (Linux 5.12)
      thermal        the thermal_throttle directories in /sys
      devices        OCI devices of the host, for --privileged
      device_nodes   host path of a --device -> the OCI devices found there
      default_ulimits   name, soft, hard of each
    """
    image = image_config or {}
    namespaces = _namespaces(options, host)
    no_new_privs, open_paths = _security(options)
    config: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(options, image, host, no_new_privs),
        "root": {"path": paths.rootfs(container_id), "readonly": bool(options.get("read_only"))},
    }
    own = {entry["type"]: not entry.get("path") for entry in namespaces}
    config.update(_names(options, "uts" in own))
    config["mounts"] = bundle_mounts.mounts(container_id, options, paths, host, own)
    config["annotations"] = dict(options.get("annotation") or {})
    config["linux"] = _linux(container_id, options, host, namespaces, own, open_paths)
    return config


def _linux(
    container_id: str,
    options: Mapping[str, Any],
    host: Mapping[str, Any],
    namespaces: list[Namespace],
    own: dict[str, bool],
    open_paths: bool,
) -> Linux:
    privileged = bool(options.get("privileged"))
    devices, rules = bundle_mounts.devices(options, host, "user" in own)
    linux: Linux = {
        "namespaces": namespaces,
        "cgroupsPath": cgroup_path(container_id, options.get("cgroup_parent")),
        "resources": bundle_limits.resources(options, host, rules),
        "devices": devices,
        "sysctl": bundle_limits.kernel_parameters(options, own),
        "rootfsPropagation": bundle_mounts.root_propagation(options),
        "maskedPaths": [],
        "readonlyPaths": [],
    }
    if not privileged and not open_paths:
        linux["maskedPaths"] = [*bundle_mounts.MASKED, *host.get("thermal", ())]
        linux["readonlyPaths"] = list(bundle_mounts.READ_ONLY)
    if own.get("user"):
        linux["uidMappings"] = host["uid_mappings"]
        linux["gidMappings"] = host["gid_mappings"]
    return linux


def _process(
    options: Mapping[str, Any],
    image: Mapping[str, Any],
    host: Mapping[str, Any],
    no_new_privs: bool,
) -> Process:
    user = _user(options, image)
    granted = capabilities.compute(
        options.get("cap_add") or (),
        options.get("cap_drop") or (),
        bool(options.get("privileged")),
        host.get("bounding", 0),
    )
    return {
        "terminal": bool(options.get("tty")),
        "user": user,
        "args": arguments(options, image),
        "env": environment(options, image, host),
        "cwd": _working_directory(options, image),
        "capabilities": _capability_sets(granted, user["uid"]),
        "rlimits": bundle_limits.rlimits(options, host),
        "noNewPrivileges": no_new_privs,
        "oomScoreAdj": options.get("oom_score_adj") or 0,
    }


def arguments(options: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    """Entrypoint and command: `--entrypoint` drops the image's command, "" clears both."""
    entrypoint = options.get("entrypoint")
    command = options.get("command")
    if entrypoint is None:
        entrypoint = image.get("Entrypoint")
        command = command or image.get("Cmd")
    found = [*(entrypoint or ()), *(command or ())]
    if not found:
        raise UsageError("no command specified")
    return found


def environment(
    options: Mapping[str, Any], image: Mapping[str, Any], host: Mapping[str, Any]
) -> list[str]:
    """Ours, the image's, the user's; a later value takes an earlier one's place, `K` removes.

    HOME is not here: it takes the container's own passwd.
    """
    env = {"PATH": PATH}
    hostname = options.get("hostname") or (
        host.get("hostname") if _shares_names(options) else HOSTNAME
    )
    if hostname:
        env["HOSTNAME"] = hostname
    if options.get("tty"):
        env["TERM"] = "xterm"
    _assign(env, image.get("Env") or ())
    _assign(env, options.get("env") or ())
    return [f"{name}={value}" for name, value in env.items()]


def _assign(env: dict[str, str], entries: Iterable[str]) -> None:
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {entry}")
        if equals:
            env[name] = value
        else:
            env.pop(name, None)


def _working_directory(options: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    chosen: str = options.get("workdir") or ""
    if chosen and not chosen.startswith("/"):
        raise UsageError(
            f"the working directory '{chosen}' is invalid, it needs to be an absolute path"
        )
    found = chosen or image.get("WorkingDir") or "/"
    return "/" + os.path.normpath(found).lstrip("/")


def _user(options: Mapping[str, Any], image: Mapping[str, Any]) -> User:
    """The ids as far as they are numbers; the runtime looks the rest up in the container."""
    name, group = credentials.split_user(options.get("user") or image.get("User") or "0")
    numbers = [credentials.number(os.fsencode(part or "0")) for part in (name, group)]
    added = (credentials.number(os.fsencode(part)) for part in options.get("group_add") or ())
    return {
        "uid": numbers[0] or 0,
        "gid": numbers[1] or 0,
        "umask": UMASK,
        "additionalGids": [gid for gid in added if gid is not None],
    }


def _capability_sets(granted: int, uid: int) -> Capabilities:
    held = capabilities.names(granted) if uid == 0 else []
    return {
        "bounding": capabilities.names(granted),
        "effective": held,
        "permitted": list(held),
        "inheritable": [],
        "ambient": [],
    }


def _security(options: Mapping[str, Any]) -> tuple[bool, bool]:
    """no_new_privs, and whether /proc and /sys stay as they are."""
    no_new_privs = open_paths = False
    for option in options.get("security_opt") or ():
        key, _, value = option.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privs = value != "false"
        elif (key, value) == ("systempaths", "unconfined"):
            open_paths = True
        elif f"{key}={value}" not in _NO_EFFECT:
            supported = "no-new-privileges[=true|false], systempaths=unconfined"
            raise UsageError(f'--security-opt "{option}": not supported; accepted: {supported}')
    return no_new_privs, open_paths


def _namespaces(options: Mapping[str, Any], host: Mapping[str, Any]) -> list[Namespace]:
    """One of each kind, new or joined, but for those that are shared with the host."""
    joined = host.get("namespaces") or {}
    found: list[Namespace] = [{"type": "mount"}]
    for kind, option in _NAMESPACES:
        mode = options.get(option) or ""
        if kind in joined:
            found.append({"type": kind, "path": joined[kind]})
        elif mode.startswith("container:"):
            raise UsageError(f"--{option} {mode}: the container has no such namespace to join")
        elif mode != "host":
            found.append({"type": kind})
    if "user" in joined:
        found.append({"type": "user", "path": joined["user"]})
    elif host.get("uid_mappings"):
        found.append({"type": "user"})
    return found


def _shares_names(options: Mapping[str, Any]) -> bool:
    """Whether the container answers to the host's name unless it is given another one."""
    return "host" in (options.get("uts"), options.get("network"))


def _names(options: Mapping[str, Any], own_uts: bool) -> dict[str, str]:
    names = {}
    for member in ("hostname", "domainname"):
        name = options.get(member)
        if name and not own_uts:
            raise UsageError(f"--{member} and --uts host exclude each other")
        if name:
            names[member] = name
    if "hostname" not in names and not _shares_names(options):
        names["hostname"] = HOSTNAME
    return names


def cgroup_path(container_id: str, parent: str | None) -> str:
    parent = parent or "/minicontainer"
    if ".." in parent.split("/"):
        raise UsageError(f"--cgroup-parent {parent}: must not contain '..'")
    return "/" + os.path.normpath(f"{parent}/{container_id}").lstrip("/")
