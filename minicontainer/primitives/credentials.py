"""Who a process is: looking a user up in a container's own files, and becoming that user.

The files are a hostile image's: they are opened beneath a descriptor of its root, must be regular,
are bounded and parsed by hand.  Not for: the host's users (nothing here asks the C library), nor
for which capabilities a container has (`capabilities`).
passwd(5), group(5), credentials(7), capabilities(7); PR_SET_KEEPCAPS, PR_SET_DUMPABLE in prctl(2).

The functions that act run in a forked child, so nothing is imported inside them.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import Error, UsageError
from minicontainer.primitives import capabilities
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LARGEST_ID = 2**31 - 1
LARGEST_DATABASE = 10 << 20
_UNMAPPED_ID = 65534  # how a user namespace shows an id it does not map


def read_database(root_fd: int, path: str) -> bytes | None:
    """The bytes of `etc/passwd` or `etc/group` in the root that `root_fd` holds.

    None unless there is a regular file by that name: a link as the last component is not followed,
    and neither a FIFO nor a device is opened. Raises Error beyond 10 MiB, OSError as open(2).
    """
    try:
        # Looked at before it is opened: opening a device may already do something.
        look_fd = _open_in_root(root_fd, path, kernel.O_PATH)
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    fd = -1
    try:
        seen = os.fstat(look_fd)
        if not stat.S_ISREG(seen.st_mode):
            return None
        fd = _open_in_root(root_fd, path, kernel.O_RDONLY | kernel.O_NONBLOCK)
        if not os.path.samestat(seen, os.fstat(fd)):
            raise Error(f"/{path} of the container was replaced while it was being read")
        return _read_bounded(fd, path)
    finally:
        kernel.close(look_fd)
        if fd >= 0:
            kernel.close(fd)


def _read_bounded(fd: int, path: str) -> bytes:
    pieces: list[bytes] = []
    room = LARGEST_DATABASE + 1
    while room > 0:
        piece = os.read(fd, min(room, 1 << 20))
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        room -= len(piece)
    raise Error(f"/{path} of the container is larger than {LARGEST_DATABASE >> 20} MiB")


def _open_in_root(root_fd: int, path: str, flags: int) -> int:
    flags |= kernel.O_NOFOLLOW | kernel.O_CLOEXEC
    resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
    for _ in range(64):
        try:
            return kernel.openat2(root_fd, path, flags, 0, resolve)
        except OSError as failure:
            # Before Linux 5.6 there is no openat2, and older seccomp profiles answer EPERM.
            if failure.errno in (errno.ENOSYS, errno.EPERM):
                return _open_by_components(root_fd, path, flags)
            # EAGAIN: a rename somewhere on the system made the walk unsafe.
            if failure.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def _open_by_components(root_fd: int, path: str, flags: int) -> int:
    """As openat2, but no link is followed at all: ELOOP or ENOTDIR instead."""
    *directories, name = path.split("/")
    through = kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
    parent_fd = kernel.open(".", through, dir_fd=root_fd)
    try:
        for directory in directories:
            next_fd = kernel.open(directory, through, dir_fd=parent_fd)
            kernel.close(parent_fd)
            parent_fd = next_fd
        fd = kernel.open(name, flags, dir_fd=parent_fd)
    finally:
        kernel.close(parent_fd)
    return fd


def split_user(spec: str) -> tuple[str, str | None]:
    """User and group of `name|uid[:name|gid]`. UsageError for another form or a number too large.

    Whether the names exist is a matter of the container's files.
    """
    user, colon, group = spec.partition(":")
    if not user or ":" in group or (colon and not group):
        raise UsageError(f'invalid user "{spec}": expected name|uid[:group|gid]')
    for part in (user, group):
        if part.isascii() and part.isdigit() and number(os.fsencode(part)) is None:
            raise UsageError(f'invalid user "{spec}": ids are in the range 0-{LARGEST_ID}')
    return user, group if colon else None


def number(text: bytes) -> int | None:
    """The id that `text` is: decimal digits up to 2**31 - 1, else None. -1 would mean "keep"."""
    digits = text.lstrip(b"0") or b"0"
    if not text.isdigit() or len(digits) > 10:
        return None
    value = int(digits)
    return value if value <= LARGEST_ID else None


def resolve_user(
    spec: str | None, group_add: list[str], passwd: bytes | None, group: bytes | None
) -> tuple[int, int, list[int], str]:
    """(uid, gid, groups, home) of `spec`, as the container's own files say; no spec is uid 0.

    A number is an entry's name first, then an entry's id, then a bare id with gid 0. groups begins
    with gid, which must not be lost by a change of gid (CVE-2022-36109), then has the user's other
    groups unless one was named, then `group_add`. home is "/" where none is known.
    UsageError for a name that is not there.
    """
    user, group_name = split_user(spec) if spec else ("0", None)
    entry = _find_user(passwd, os.fsencode(user), by_name=bool(spec))
    uid = number(os.fsencode(user)) if entry is None else entry[1]
    if uid is None:
        raise UsageError(f"unable to find user {user}: no matching entries in passwd file")
    name, _, gid, home = entry or (None, uid, 0, "/")
    groups = []
    if group_name is not None:
        gid = _find_group(group, group_name)
    elif name is not None:
        groups = [
            member_gid
            for _, member_gid, members in _group_entries(group)
            if name in members.split(b",")
        ]
    groups += [_find_group(group, added) for added in group_add]
    return uid, gid, list(dict.fromkeys([gid, *groups])), home


def home_of(uid: int, passwd: bytes | None) -> str:
    """The home directory of the first entry with that uid, or "/"."""
    return next((home for _, other, _, home in _passwd_entries(passwd) if other == uid), "/")


def _find_user(
    passwd: bytes | None, user: bytes, *, by_name: bool
) -> tuple[bytes, int, int, str] | None:
    uid = number(user)
    found = None
    for entry in _passwd_entries(passwd):
        if by_name and entry[0] == user:
            return entry
        if found is None and entry[1] == uid:
            found = entry
    return found


def _find_group(group: bytes | None, name: str) -> int:
    wanted = os.fsencode(name)
    for entry_name, gid, _ in _group_entries(group):
        if entry_name == wanted:
            return gid
    number_itself = number(wanted)
    if number_itself is None:
        raise UsageError(f"unable to find group {name}: no matching entries in group file")
    return number_itself


def _passwd_entries(passwd: bytes | None) -> Iterator[tuple[bytes, int, int, str]]:
    """name, uid, gid, home of each line that has them; the others are passed over."""
    for line in (passwd or b"").split(b"\n"):
        fields = line.split(b":")
        if len(fields) < 4 or not fields[0]:
            continue
        uid, gid = number(fields[2]), number(fields[3])
        if uid is None or gid is None:
            continue
        home = fields[5] if len(fields) > 5 else b""
        usable = home.startswith(b"/") and b"\0" not in home
        yield fields[0], uid, gid, os.fsdecode(home) if usable else "/"


def _group_entries(group: bytes | None) -> Iterator[tuple[bytes, int, bytes]]:
    """name, gid, members (a comma list) of each line that has them."""
    for line in (group or b"").split(b"\n"):
        fields = line.split(b":")
        if len(fields) < 3 or not fields[0]:
            continue
        gid = number(fields[2])
        if gid is not None:
            yield fields[0], gid, fields[3] if len(fields) > 3 else b""


def become(
    uid: int,
    gid: int,
    groups: list[int],
    umask: int | None,
    caps: Mapping[str, int],
    no_new_privs: bool,
) -> None:
    """Turn this process into the user, with exactly the five sets of `caps` (capabilities.SETS).

    A seccomp filter goes before this call without no_new_privs, as loading it needs CAP_SYS_ADMIN,
    and after it with no_new_privs. umask: None leaves it. Raises KernelError.
    """
    if umask is not None:
        kernel.umask(umask)
    with step("limit the capability bounding set"):
        # First: the bounding set can only change while CAP_SETPCAP is effective.
        capabilities.drop_bounding(caps["bounding"])
    with step("become user %d, group %d", uid, gid):
        # Without KEEPCAPS, leaving uid 0 would clear the permitted set before it is chosen.
        kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
        _set_groups(groups, gid)
        kernel.setresgid(gid, gid, gid)
        kernel.setresuid(uid, uid, uid)
        kernel.prctl(kernel.PR_SET_KEEPCAPS, 0)
    with step("set the capabilities"):
        capabilities.set_capabilities(caps["effective"], caps["permitted"], caps["inheritable"])
        capabilities.set_ambient(caps["ambient"])
    with step("close the process to tracing"):
        # Again: a change of credentials has set it to fs.suid_dumpable.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if no_new_privs:
        with step("forbid new privileges"):
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _set_groups(groups: list[int], gid: int) -> None:
    try:
        kernel.setgroups(groups)
    except PermissionError:
        # A user namespace that maps one id has setgroups denied (user_namespaces(7)). What is
        # left then are groups of the host that it does not map: they open nothing new.
        if set(os.getgroups()) - {gid, _UNMAPPED_ID} != set(groups) - {gid}:
            raise
