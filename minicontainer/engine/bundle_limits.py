"""The part of `config.json` that bounds a container: resources, rlimits, sysctls.

Pure, and used by `bundle` alone.  The rules and their sentences are Docker's, so that what it
refuses is refused here.  Whether the host can enforce a limit is for `cgroups` to say.
The grammar is imported only where its tables are needed: most starts give neither limit nor sysctl.
"""

from __future__ import annotations

from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minicontainer.runtime.spec import DeviceRule, Resources, Rlimit

SMALLEST_MEMORY = 6 << 20
PIDS = 2048
PERIOD_MICROSECONDS = 100_000
_UNLIMITED = 2**64 - 1


def resources(
    options: Mapping[str, Any], host: Mapping[str, Any], rules: list[DeviceRule]
) -> Resources:
    """`linux.resources`: only what was asked for, and the default pids limit where cgroups are.

    rules: those of the device cgroup.
    """
    found: Resources = {"devices": rules}
    memory = _memory(options)
    if memory:
        found["memory"] = memory
    cpu = _cpu(options)
    if cpu:
        found["cpu"] = cpu
    pids = options.get("pids_limit")
    if pids is None and host.get("cgroup_mode") != "none":
        pids = PIDS
    if pids is not None and pids > 0:
        found["pids"] = {"limit": pids}
    return found


def _memory(options: Mapping[str, Any]) -> dict[str, int]:
    limit = options.get("memory") or 0
    swap = options.get("memory_swap") or 0
    reservation = options.get("memory_reservation") or 0
    if limit and limit < SMALLEST_MEMORY:
        raise UsageError("Minimum memory limit allowed is 6MB")
    if swap and not limit:
        raise UsageError("--memory-swap needs --memory, as it limits the sum of memory and swap")
    if swap > 0 and swap < limit:
        raise UsageError("Minimum memoryswap limit should be larger than memory limit")
    if reservation and reservation < SMALLEST_MEMORY:
        raise UsageError("Minimum memory reservation allowed is 6MB")
    if limit and reservation > limit:
        raise UsageError("Minimum memory limit can not be less than memory reservation limit")
    if limit and not swap:
        swap = 2 * limit
    named = (("limit", limit), ("swap", swap), ("reservation", reservation))
    return {name: value for name, value in named if value}


def _cpu(options: Mapping[str, Any]) -> dict[str, Any]:
    nano = options.get("cpus") or 0
    quota = options.get("cpu_quota") or 0
    period = options.get("cpu_period") or 0
    if nano and (quota or period):
        raise UsageError("--cpus and --cpu-quota or --cpu-period exclude each other")
    if period and not 1000 <= period <= 1_000_000:
        raise UsageError("CPU cfs period can not be less than 1ms or more than 1s")
    if nano:
        period = PERIOD_MICROSECONDS
        quota = nano * period // 1_000_000_000
    if 0 < quota < 1000:
        raise UsageError("CPU cfs quota can not be less than 1ms")
    named = (
        ("shares", options.get("cpu_shares")),
        ("quota", quota),
        ("period", period),
        ("cpus", options.get("cpuset_cpus")),
        ("mems", options.get("cpuset_mems")),
    )
    return {name: value for name, value in named if value}


def rlimits(options: Mapping[str, Any], host: Mapping[str, Any]) -> list[Rlimit]:
    """`process.rlimits`: the configured defaults, then the user's; a later one replaces."""
    wanted = [*(host.get("default_ulimits") or ()), *(options.get("ulimit") or ())]
    if not wanted:
        return []
    from minicontainer.runtime import grammar

    found: dict[str, Rlimit] = {}
    for limit in wanted:
        kind = f"RLIMIT_{limit['name'].upper()}"
        if kind not in grammar.RLIMITS:
            raise UsageError(f"invalid ulimit type: {limit['name']}")
        soft, hard = (_UNLIMITED if limit[end] < 0 else limit[end] for end in ("soft", "hard"))
        if soft > hard:
            raise UsageError(
                f"ulimit {limit['name']}: the soft limit {limit['soft']} is above "
                f"the hard limit {limit['hard']}"
            )
        found[kind] = {"type": kind, "soft": soft, "hard": hard}
    return list(found.values())


def kernel_parameters(options: Mapping[str, Any], own: Mapping[str, bool]) -> dict[str, str]:
    """`linux.sysctl`: the user's, each in a namespace the container does not share with the host.

    A new network namespace also lets everybody ping: it replaces CAP_NET_RAW. In a user namespace
    the range must consist of mapped ids.
    """
    found = {}
    if own.get("network") and not (options.get("network") or "").startswith("container:"):
        found["net.ipv4.ping_group_range"] = "0 0" if "user" in own else "0 2147483647"
    wanted = options.get("sysctl") or {}
    if not wanted:
        return found
    from minicontainer.primitives import sysctls

    for name, value in wanted.items():
        kind = sysctls.namespace_of(name)
        if kind is None:
            raise UsageError(f"sysctl '{name}' is not allowed: it belongs to no namespace")
        if kind not in own:
            raise UsageError(f"sysctl '{name}' is not allowed in the host's {kind} namespace")
        found[name] = value
    return found
