"""`config.json`: reading, checking and, for the checker, typing the OCI runtime configuration.

`grammar` has the check of each member alone; here are the rules that concern several at once.
Every refusal is a SpecError that begins with a JSON pointer.  Not for: defaults (engine/bundle.py).
https://github.com/opencontainers/runtime-spec: config.md, config-linux.md; RFC 6901.
"""

from __future__ import annotations

import os

from minicontainer import jsontext
from minicontainer.errors import SpecError
from minicontainer.primitives import sysctls
from minicontainer.runtime import grammar
from minicontainer.runtime.grammar import escaped, refuse
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    class User(TypedDict, total=False):
        uid: int
        gid: int
        umask: int
        additionalGids: list[int]

    class Capabilities(TypedDict, total=False):
        bounding: list[str]
        effective: list[str]
        permitted: list[str]
        inheritable: list[str]
        ambient: list[str]

    class Rlimit(TypedDict):
        type: str
        soft: int
        hard: int

    class Process(TypedDict, total=False):
        terminal: bool
        consoleSize: dict[str, int]
        user: User
        args: list[str]
        env: list[str]
        cwd: str
        capabilities: Capabilities
        rlimits: list[Rlimit]
        noNewPrivileges: bool
        oomScoreAdj: int
        apparmorProfile: str
        selinuxLabel: str

    class Root(TypedDict, total=False):
        path: str
        readonly: bool

    class Mapping(TypedDict):
        containerID: int
        hostID: int
        size: int

    class Mount(TypedDict, total=False):
        destination: str
        type: str
        source: str
        options: list[str]
        uidMappings: list[Mapping]
        gidMappings: list[Mapping]

    class Namespace(TypedDict, total=False):
        type: str
        path: str

    class Node(TypedDict):
        path: str
        type: str
        major: int
        minor: int

    class Device(Node, total=False):
        fileMode: int
        uid: int
        gid: int
        source: str  # ours: the host's node, where it is bound because mknod is refused

    class DeviceRule(TypedDict, total=False):
        allow: bool
        type: str
        major: int
        minor: int
        access: str

    class Resources(TypedDict, total=False):
        devices: list[DeviceRule]
        memory: dict[str, Any]
        cpu: dict[str, Any]
        pids: dict[str, int]
        unified: dict[str, str]

    class Linux(TypedDict, total=False):
        namespaces: list[Namespace]
        uidMappings: list[Mapping]
        gidMappings: list[Mapping]
        devices: list[Device]
        cgroupsPath: str
        resources: Resources
        rootfsPropagation: str
        seccomp: dict[str, Any]
        sysctl: dict[str, str]
        maskedPaths: list[str]
        readonlyPaths: list[str]
        mountLabel: str

    class Config(TypedDict, total=False):
        ociVersion: str
        process: Process
        root: Root
        hostname: str
        domainname: str
        mounts: list[Mount]
        hooks: dict[str, list[dict[str, Any]]]
        annotations: dict[str, str]
        linux: Linux


LARGEST_FILE = 16 << 20
DEEPEST = 100


def load(path: str) -> dict[str, Any]:
    """The valid configuration in the file `path`, without nulls, mount destinations absolute.

    Raises SpecError for what is wrong in it, KernelError if it cannot be read.
    """
    with step("read %s", path), open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise SpecError(f"{path}: larger than {LARGEST_FILE >> 20} MiB")
    try:
        config = _without_nulls(jsontext.loads(data), DEEPEST)
    except ValueError as reason:
        raise SpecError(f"{path}: {reason}") from None
    _make_destinations_absolute(config)
    validate(config)
    result: dict[str, Any] = config
    return result


def _make_destinations_absolute(config: Any) -> None:
    """A relative destination is deprecated but legal: it starts at the container's root."""
    mounts = config.get("mounts") if isinstance(config, dict) else None
    for mount in mounts if isinstance(mounts, list) else ():
        destination = mount.get("destination") if isinstance(mount, dict) else None
        if isinstance(destination, str) and destination and not destination.startswith("/"):
            mount["destination"] = f"/{destination}"


def _without_nulls(value: Any, depth: int) -> Any:
    """`value` less the members that are null: Go's encoders write them for absent ones."""
    if isinstance(value, (dict, list)):
        if not depth:
            raise ValueError(f"nested more than {DEEPEST} deep")
        if isinstance(value, dict):
            return {
                name: _without_nulls(member, depth - 1)
                for name, member in value.items()
                if member is not None
            }
        return [_without_nulls(member, depth - 1) for member in value]
    return value


def validate(config: Any) -> None:
    """Refuse, with a SpecError, a configuration that cannot be carried out as it stands."""
    grammar.check(config)
    for rule in _RULES:
        rule(config)


def _kinds(config: Config) -> dict[str, bool]:
    """The types of namespace that are not the runtime's own: True for a new one, False joined."""
    return {entry["type"]: not entry.get("path") for entry in config["linux"].get("namespaces", ())}


def _namespaces_are_listed_once(config: Config) -> None:
    seen = set()
    for index, entry in enumerate(config["linux"].get("namespaces", ())):
        if entry["type"] in seen:
            refuse(f"/linux/namespaces/{index}/type", f"{entry['type']} is listed twice")
        seen.add(entry["type"])
    if "mount" not in seen:
        # Without one there is only chroot, which a process with CAP_SYS_CHROOT leaves.
        refuse("/linux/namespaces", "a mount namespace is required")


def _names_need_a_namespace(config: Config) -> None:
    names: list[tuple[str, str | None]] = [
        ("hostname", config.get("hostname")),
        ("domainname", config.get("domainname")),
    ]
    for member, name in names:
        if not name:
            continue
        if len(os.fsencode(name)) > 64:
            refuse(f"/{member}", "is longer than 64 bytes")
        if "uts" not in _kinds(config):
            refuse(f"/{member}", "needs a uts namespace in /linux/namespaces")


def _mappings_need_a_user_namespace(config: Config) -> None:
    linux = config["linux"]
    new = _kinds(config).get("user", False)
    mappings = (
        ("uidMappings", linux.get("uidMappings")),
        ("gidMappings", linux.get("gidMappings")),
    )
    for member, listed in mappings:
        if listed and not new:
            refuse(f"/linux/{member}", "needs a new user namespace in /linux/namespaces")
        if new and not listed:
            refuse(f"/linux/{member}", "is required with a new user namespace")


def _rlimits_are_listed_once(config: Config) -> None:
    seen = set()
    for index, limit in enumerate(config["process"].get("rlimits", ())):
        if limit["type"] in seen:
            refuse(f"/process/rlimits/{index}/type", f"{limit['type']} is listed twice")
        seen.add(limit["type"])


def _binds_have_a_source(config: Config) -> None:
    for index, mount in enumerate(config.get("mounts", ())):
        options = mount.get("options", ())
        is_bind = mount.get("type") == "bind" or "bind" in options or "rbind" in options
        if is_bind and not mount.get("source"):
            refuse(f"/mounts/{index}/source", "is required for a bind mount")


def _sysctls_are_the_containers(config: Config) -> None:
    kinds = _kinds(config)
    for name in config["linux"].get("sysctl", ()):
        kind = sysctls.namespace_of(name)
        if kind is None:
            refuse(f"/linux/sysctl/{escaped(name)}", "is not a sysctl of any namespace")
        if kind not in kinds:
            refuse(f"/linux/sysctl/{escaped(name)}", f"needs a {kind} namespace of its own")


_RULES = (
    _namespaces_are_listed_once,
    _names_need_a_namespace,
    _mappings_need_a_user_namespace,
    _rlimits_are_listed_once,
    _binds_have_a_source,
    _sysctls_are_the_containers,
)
