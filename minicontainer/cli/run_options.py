"""The flags of `run` and `create`, and the options dict they mean.

The rows are what users see (INTERFACES A.7).  `collect` checks what only several flags together can
get wrong, and leaves one plain dict: strings have become values with units here and nowhere else.
"""

from __future__ import annotations

from minicontainer.cli import mounts, process_options, quantities, values
from minicontainer.cli.options import NOT_YET, Option, WrongArguments, flag
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minicontainer.cli.options import Values

# Also the rows of `update`.
LIMITS = (
    Option("-m, --memory", quantities.memory, "memory limit, from 6m", "SIZE"),
    Option("--memory-swap", quantities.memory_swap, "memory plus swap, -1: no limit", "SIZE"),
    Option("--memory-reservation", quantities.memory, "memory to be left when it is short", "SIZE"),
    Option("--cpus", quantities.cpus, "CPUs' worth of time, from 0.01", "NUMBER"),
    Option(
        "-c, --cpu-shares", quantities.integer(2, 262144, zero=True),
        "share of CPU time against others (1024 is usual)", "N",
    ),
    Option(
        "--cpu-period", quantities.integer(1000, 1000000, zero=True),
        "length of a CPU quota's period in microseconds", "N",
    ),
    Option("--cpu-quota", quantities.cpu_quota, "CPU microseconds in a period, -1: no limit", "N"),
    Option("--cpuset-cpus", quantities.cpuset, "CPUs it may run on", "LIST"),
    Option("--cpuset-mems", quantities.cpuset, "memory nodes it may use", "LIST"),
    Option("--pids-limit", quantities.pids_limit, "processes and threads, 0 or -1: no limit", "N"),
)  # fmt: skip

RESTART = Option(
    "--restart", values.restart, "when to start again: no, on-failure[:N], always, unless-stopped",
    "POLICY",
)  # fmt: skip
_IDENTITY = (
    Option("--rootfs", values.path, "directory to use as root file system, never written", "DIR"),
    Option(
        "--pull", values.choice("missing", "always", "never"), "when to pull the image", "WHEN",
        default="missing",
    ),
    Option("--platform", str, "the image's platform", "OS[/ARCH[/VARIANT]]"),
    Option("--name", values.name, "name of the container", "NAME"),
    Option("-h, --hostname", values.hostname, "host name inside", "NAME"),
    Option("--domainname", values.hostname, "NIS domain name inside", "NAME"),
    Option("-l, --label", values.pair, "label for people and filters", "KEY[=VALUE]", repeat=True),
    Option("--label-file", values.pairs_of_file, "labels, one a line", "FILE", repeat=True),
    Option("--annotation", values.assignment, "OCI annotation", "KEY=VALUE", repeat=True),
    Option("--cidfile", values.path, "write the container's id to FILE", "FILE"),
    Option("--pidfile", values.path, "write the host's number of the process to FILE", "FILE"),
)  # fmt: skip
_MODE = (
    flag("-d, --detach", "run in the background and print the id"),
    flag("-i, --interactive", "keep standard input open"),
    flag("-t, --tty", "give it a terminal"),
    flag("--rm", "remove the container when it ends"),
    process_options.SIG_PROXY,
    process_options.DETACH_KEYS,
    RESTART,
    flag("-q, --quiet", "no progress on standard error"),
)  # fmt: skip
_PROCESS = (
    *process_options.ENVIRONMENT,
    process_options.WORKDIR,
    process_options.USER,
    Option("--group-add", str, "further group", "GROUP", repeat=True),
    Option("--entrypoint", str, 'program before the arguments, "" for none', "COMMAND"),
    Option("--stop-signal", values.signal, "signal that stops it (default TERM)", "SIGNAL"),
    Option("--stop-timeout", quantities.stop_timeout, "seconds until KILL (default 10)", "SECONDS"),
    Option("--ulimit", values.ulimit, "resource limit", "NAME=SOFT[:HARD]", repeat=True),
    Option(
        "--oom-score-adj",
        quantities.integer(-1000, 1000),
        "how soon it is killed, -1000 to 1000",
        "N",
    ),
)
_FILES = (
    Option(
        "-v, --volume", mounts.volume, "show a file or directory of the host inside",
        "HOST:CONTAINER[:OPTIONS]", repeat=True, key="mounts",
    ),
    Option(
        "--mount", mounts.mount, "type=bind|tmpfs,source=...,target=...", "FIELDS",
        repeat=True, key="mounts",
    ),
    Option(
        "--tmpfs", mounts.tmpfs, "file system in memory", "DIR[:OPTIONS]", repeat=True, key="mounts"
    ),
    flag("--read-only", "the root file system cannot be written"),
    Option("--shm-size", quantities.shared_memory, "size of /dev/shm (default 64m)", "SIZE"),
    Option(
        "--device", mounts.device, "device of the host", "HOST[:CONTAINER][:rwm]", repeat=True
    ),
    Option(
        "--device-cgroup-rule", mounts.device_rule, "allow devices: 'c 10:200 rwm'", "RULE",
        repeat=True,
    ),
)  # fmt: skip
_CONFINEMENT = (
    Option("--cap-add", values.capabilities, "add a capability, or ALL", "NAME", repeat=True),
    Option("--cap-drop", values.capabilities, "drop a capability, or ALL", "NAME", repeat=True),
    flag("--privileged", "lift nearly all confinement: root inside is root of the host"),
    Option(
        "--security-opt", values.security, "no-new-privileges, systempaths=unconfined",
        "OPTION", repeat=True,
    ),
    Option("--sysctl", values.sysctl, "kernel parameter of its namespaces", "K=V", repeat=True),
    Option("--cgroup-parent", values.cgroup_parent, "cgroup to make its own in", "PATH"),
    Option("--pid", values.namespace("host"), "pid namespace: host, container:NAME", "MODE"),
    Option(
        "--ipc", values.namespace("host", "shareable", "none"),
        "IPC namespace: host, shareable, none, container:NAME", "MODE",
    ),
    Option("--uts", values.namespace("host", container=False), "UTS namespace: host", "MODE"),
    Option(
        "--cgroupns", values.namespace("host", container=False), "cgroup namespace: host", "MODE"
    ),
)  # fmt: skip
_NETWORK = (
    Option("--network, --net", values.network, "none or host", "MODE", default="none"),
    Option("--add-host", values.extra_host, "line in /etc/hosts", "NAME:ADDRESS", repeat=True),
    Option("--dns", values.address, "name server", "ADDRESS", repeat=True),
    Option("--dns-search", str, "search domain, . for none", "DOMAIN", repeat=True),
    Option("--dns-option", str, "option in /etc/resolv.conf", "OPTION", repeat=True),
)
_LOG = (
    Option(
        "--log-driver", values.choice("json-file", "none"), "json-file or none", "NAME",
        default="json-file",
    ),
    Option("--log-opt", values.log_option, "max-size=SIZE, max-file=N", "KEY=VALUE", repeat=True),
)  # fmt: skip
TABLE = (
    *_IDENTITY, *_MODE, *_PROCESS, *_FILES, *LIMITS, *_CONFINEMENT, *_NETWORK, *_LOG,
)  # fmt: skip
# `create` starts nothing, so what concerns the caller's terminal is left to `start`.
CREATE_TABLE = tuple(
    option for option in TABLE if option.key not in ("detach", "detach_keys", "sig_proxy")
)

_NO_BRIDGE = f"-p/--publish needs a bridge network, which is {NOT_YET}; use --network host"
# Docker's other flags: known, refused, never ignored.
LATER = dict.fromkeys(
    (
        "--blkio-weight", "--blkio-weight-device", "--cpu-rt-period", "--cpu-rt-runtime",
        "--device-read-bps", "--device-read-iops", "--device-write-bps", "--device-write-iops",
        "--disable-content-trust", "--expose", "--gpus", "--health-cmd", "--health-interval",
        "--health-retries", "--health-start-interval", "--health-start-period",
        "--health-timeout", "--init", "--ip", "--ip6", "--kernel-memory", "--link",
        "--link-local-ip", "--mac-address", "--memory-swappiness", "--network-alias",
        "--net-alias", "--no-healthcheck", "--oom-kill-disable",
        "--runtime", "--storage-opt", "--userns", "--volume-driver", "--volumes-from",
    ),
    "",
)  # fmt: skip
LATER.update({"-p": _NO_BRIDGE, "--publish": _NO_BRIDGE, "-P": "", "--publish-all": ""})
LATER.update({"-a": "", "--attach": ""})

# Keys of the options dict that no flag of this table sets yet.
_ABSENT = ("userns",)


def collect(flags: Values, arguments: list[str]) -> dict[str, Any]:
    """The options of `run` and `create`. Raises UsageError."""
    options = {option.key: flags.get(option.key, option.default) for option in TABLE}
    options.update(dict.fromkeys(_ABSENT), attach=[], init=False, publish=[])
    options["restart"] = options["restart"] or {"name": "no", "maximum": 0}
    options["image"] = None
    if options["rootfs"] is None:
        if not arguments:
            raise WrongArguments("an image, or --rootfs DIR and a command, is required")
        options["image"], *arguments = arguments
    options["command"] = arguments
    entrypoint = options["entrypoint"]
    options["entrypoint"] = entrypoint if entrypoint is None else [entrypoint] if entrypoint else []
    if not arguments and not entrypoint and options["rootfs"] is not None:
        raise UsageError("no command specified")
    _gather(options)
    _check_mode(options)
    _check_limits(options)
    return options


def _gather(options: dict[str, Any]) -> None:
    """Turn what lists mean into its final form: later entries win where there is a key."""
    options["env"] = process_options.join_environment(options)
    labels = [pair for pairs in options.pop("label_file") for pair in pairs]
    options["label"] = _table("labels", labels + options["label"])
    for key in ("annotation", "sysctl", "log_opt"):
        options[key] = _table(key, options[key])
    for key in ("cap_add", "cap_drop"):
        options[key] = [name for names in options[key] for name in names]
    options["ulimit"] = list({limit["name"]: limit for limit in options["ulimit"]}.values())
    seen = set()
    for mount in options["mounts"]:
        if mount["destination"] in seen:
            raise UsageError(f"duplicate mount point: {mount['destination']}")
        seen.add(mount["destination"])


def _table(what: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    table = dict(pairs)
    process_options.check_total(what, [key + value for key, value in table.items()])
    return table


def _check_mode(options: dict[str, Any]) -> None:
    restarts = options["restart"]["name"] != "no"
    conflicts = (
        (options["rm"] and restarts, "--rm and --restart exclude each other"),
        (
            options["uts"] == "host" and (options["hostname"] or options["domainname"]),
            "--uts host and --hostname exclude each other: the name would be the host's",
        ),
        (
            options["log_driver"] == "none" and options["log_opt"],
            "--log-opt and --log-driver none exclude each other",
        ),
    )
    for broken, sentence in conflicts:
        if broken:
            raise UsageError(sentence)


def _check_limits(options: dict[str, Any]) -> None:
    memory, swap = options["memory"], options["memory_swap"]
    reservation = options["memory_reservation"]
    if swap is not None and memory is None:
        raise UsageError("--memory-swap needs --memory: it is memory and swap together")
    if swap not in (None, -1) and swap < memory:
        raise UsageError(f"--memory-swap is below --memory; accepted from {memory}, or -1")
    if reservation is not None and memory is not None and reservation > memory:
        raise UsageError(f"--memory-reservation is above --memory; accepted up to {memory}")
    if options["cpus"] is not None and (options["cpu_period"] or options["cpu_quota"]):
        raise UsageError("--cpus and --cpu-period or --cpu-quota exclude each other")
