"""What `linux.resources` of a config.json asks of control groups, as plain data.

Pure: names, the controller each limit needs, ranges, and the errors for what cannot be had.  The
files the limits are written to are the business of `cgroup_v1` and `cgroup_v2`.
"""

from __future__ import annotations

from minicontainer.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Asked = dict[str, Any]  # name -> int, or str for the lists of cpuset

# name -> (section of the resources, key in it, controller, how errors call it).
# The order is that of writing: memory before memory+swap, period before quota.
LIMITS = {
    "memory": ("memory", "limit", "memory", "memory limit"),
    "swap": ("memory", "swap", "memory", "memory+swap limit"),
    "reservation": ("memory", "reservation", "memory", "memory reservation"),
    "shares": ("cpu", "shares", "cpu", "cpu shares"),
    "period": ("cpu", "period", "cpu", "cpu period"),
    "quota": ("cpu", "quota", "cpu", "cpu quota"),
    "cpus": ("cpu", "cpus", "cpuset", "cpuset cpus"),
    "mems": ("cpu", "mems", "cpuset", "cpuset mems"),
    "pids": ("pids", "limit", "pids", "pids limit"),
}
_MAY_BE_UNLIMITED = {"memory", "swap", "reservation", "quota", "pids"}
UNLIMITED = -1


def asked(resources: dict[str, Any]) -> Asked:
    """name -> value of every limit set in `resources`; any negative number is UNLIMITED.

    0 and "" mean "not set", but no process at all can be meant by a pids limit of 0: unlimited.
    """
    found: Asked = {}
    for name, (section, key, _, _) in LIMITS.items():
        value = (resources.get(section) or {}).get(key)
        if name == "pids" and value == 0:
            value = UNLIMITED
        if not value:
            continue
        if name in _MAY_BE_UNLIMITED and value < 0:
            value = UNLIMITED
        found[name] = value
    memory, swap = found.get("memory", 0), found.get("swap", 0)
    if memory == UNLIMITED:
        # The kernel refuses memory+swap below memory.
        found.setdefault("swap", UNLIMITED)
    elif 0 < swap < memory:
        raise Error(f"{sentence('swap', swap)}: it is below the memory limit {memory}")
    return found


def is_unlimited(name: str, value: Any) -> bool:
    """Whether the value is true also of a group without that limit."""
    return name in _MAY_BE_UNLIMITED and value == UNLIMITED


def controller_of(name: str) -> str:
    return LIMITS[name][2]


def sentence(name: str, value: Any) -> str:
    """What is attempted when the limit is written."""
    return f"set the {LIMITS[name][3]} to {'unlimited' if is_unlimited(name, value) else value}"


def parse_list(text: str) -> set[int]:
    """The numbers of a list as cpuset(7) writes it, `0-2,4`; ValueError for anything else."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and len(first) <= 6):
            raise ValueError(text)
        if dash and not (last.isascii() and last.isdigit() and len(last) <= 6):
            raise ValueError(text)
        low, high = int(first), int(last or first)
        if high < low or high > 65535:
            raise ValueError(text)
        numbers.update(range(low, high + 1))
    return numbers


def check_list(name: str, value: str, accepted: str) -> None:
    """Refuse a list of CPUs or memory nodes that is not within the `accepted` one."""
    try:
        wanted = parse_list(value)
    except ValueError:
        reason = "is not a list of numbers and ranges"
    else:
        if not accepted or wanted <= parse_list(accepted):
            return
        reason = "is not available here"
    raise Error(f'{LIMITS[name][3]}: "{value}" {reason}; accepted: within {accepted or "0-65535"}')


def weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for cpu.shares (2 to 262144).

    The formula of runc since 1.3.2 and crun since 1.23, which maps least, default (1024 to 100)
    and greatest to each other; the linear one before them made 39 of 1024.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = (log2(shares) ** 2 + 125 * log2(shares)) / 612 - 7 / 34
    return ceil(10**exponent)
