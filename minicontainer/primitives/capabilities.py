"""Capabilities: their names and numbers, which set a container gets, and the acts that apply it.

Bit masks are plain ints, bit N is capability N.  Not for: deciding in which order credentials
change (`credentials`), nor for the sets of a given `config.json` entry by entry (`runtime`).
capabilities(7), PR_CAPBSET_DROP and PR_CAP_AMBIENT in prctl(2).
"""

from __future__ import annotations

import errno

from minicontainer import kernel
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The position in this tuple is the number (linux/capability.h); a test holds it to kernel.CAP_*.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

# Docker's fourteen without MKNOD, NET_RAW (ARP and RA spoofing) and AUDIT_WRITE.
DEFAULT = (
    1 << kernel.CAP_CHOWN
    | 1 << kernel.CAP_DAC_OVERRIDE
    | 1 << kernel.CAP_FOWNER
    | 1 << kernel.CAP_FSETID
    | 1 << kernel.CAP_KILL
    | 1 << kernel.CAP_SETGID
    | 1 << kernel.CAP_SETUID
    | 1 << kernel.CAP_SETPCAP
    | 1 << kernel.CAP_NET_BIND_SERVICE
    | 1 << kernel.CAP_SYS_CHROOT
    | 1 << kernel.CAP_SETFCAP
)

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def names(bits: int) -> list[str]:
    """The names in a mask, by number; a bit that has no name yet is left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def canonical(name: str) -> str:
    """`name` in the kernel's spelling: `net_admin` is CAP_NET_ADMIN. Not checked to exist."""
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def bits_of(listed: Iterable[str], flag: str) -> int:
    """The mask of names as users write them. UsageError, naming `flag`, for an unknown one."""
    bits = 0
    for name in listed:
        number = NUMBERS.get(canonical(name))
        if number is None:
            raise UsageError(f'{flag}: unknown capability "{name}"')
        bits |= 1 << number
    return bits


def mask(listed: Iterable[str]) -> int:
    """The mask of names in the kernel's spelling; one that is unknown is passed over."""
    bits = 0
    for name in listed:
        if name in NUMBERS:
            bits |= 1 << NUMBERS[name]
    return bits


def last_cap() -> int:
    """The highest capability number of the running kernel."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def full() -> int:
    """All capabilities of the running kernel: what a new user namespace starts with."""
    return (2 << last_cap()) - 1


def bounding() -> int:
    """The bounding set of this process: the most that any container of ours can get."""
    with open("/proc/self/status", "rb") as file:
        status = file.read()
    start = status.index(b"\nCapBnd:") + len(b"\nCapBnd:")
    return int(status[start : status.index(b"\n", start)], 16)


def compute(add: Iterable[str], drop: Iterable[str], privileged: bool, available: int) -> int:
    """The set that `--cap-add`, `--cap-drop` and `--privileged` ask for, out of `available`.

    ALL applies before single names wherever it stands; a name both dropped and added is added.
    UsageError for an unknown name, and for an added one that we cannot grant.
    """
    add_all, added = _split_all(add)
    drop_all, dropped = _split_all(drop)
    if add_all and drop_all:
        raise UsageError("--cap-add ALL and --cap-drop ALL contradict each other")
    wanted = bits_of(added, "--cap-add")
    if wanted & ~available:
        refused = ", ".join(names(wanted & ~available))
        raise UsageError(
            f"--cap-add {refused}: not in our own bounding set, so it cannot be granted"
        )
    unwanted = bits_of(dropped, "--cap-drop")
    if drop_all:
        base = 0
    elif add_all or privileged:
        base = available
    else:
        base = DEFAULT & available
    return base & ~unwanted | wanted


def _split_all(listed: Iterable[str]) -> tuple[bool, list[str]]:
    single = [name for name in listed if canonical(name) != "CAP_ALL"]
    return len(single) != len(list(listed)), single


def sets(listed: Mapping[str, list[str]], available: int) -> tuple[dict[str, int], list[str]]:
    """The five masks of an OCI `process.capabilities`, and a warning for each name not granted.

    The masks are as listed, less what is unknown, not `available`, effective without permitted,
    or ambient without permitted and inheritable: the specification wants a warning there, and
    the result is never wider than what was given.
    """
    masks = {}
    warnings = []
    for kind in SETS:
        bits = 0
        for name in listed.get(kind) or ():
            number = NUMBERS.get(name)
            if number is None or not available >> number & 1:
                reason = "is unknown" if number is None else "cannot be granted"
                warnings.append(f"{kind} capability {name} {reason}")
            else:
                bits |= 1 << number
        masks[kind] = bits
    for kind, limit in (
        ("effective", masks["permitted"]),
        ("ambient", masks["permitted"] & masks["inheritable"]),
    ):
        for name in names(masks[kind] & ~limit):
            warnings.append(f"{kind} capability {name} cannot be granted")
        masks[kind] &= limit
    return masks, warnings


def drop_bounding(keep: int) -> None:
    """Remove all from the bounding set but `keep`. Needs CAP_SETPCAP if anything is to go.

    It ends where the kernel knows no higher number, so it needs no /proc, and drops also those
    capabilities that are newer than our table.
    """
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, number)
        except OSError as failure:
            if failure.errno == errno.EINVAL:
                return
            # Without CAP_SETPCAP the kernel refuses even to drop what is not there.
            if failure.errno != errno.EPERM or _in_bounding_set(number):
                raise


def _in_bounding_set(number: int) -> bool:
    """Whether the bounding set has the capability; False also for one the kernel does not know."""
    try:
        return bool(kernel.prctl(kernel.PR_CAPBSET_READ, number))
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        return False


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Replace the three sets of this thread. OSError EPERM if permitted would grow."""
    kernel.capset(effective, permitted, inheritable)


def set_ambient(bits: int) -> None:
    """Make `bits` the ambient set; each must be permitted and inheritable already."""
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_RAISE, number)
