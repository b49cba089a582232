"""Where this engine keeps its things: flag, then environment, then default.

An empty variable counts as unset (podman hands an empty XDG_RUNTIME_DIR to root).  Nothing is made
here, and an absolute path is taken without looking at the working directory, which may be gone.
"""

from __future__ import annotations

import os

from minicontainer.errors import UsageError
from minicontainer.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve(
    root: str | None,
    runroot: str | None,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
) -> Paths:
    """The roots that the flags (None: not given), the environment and the user id ask for."""
    environment = os.environ if environment is None else environment
    user = os.geteuid() if user is None else user
    root = _chosen("--root", root) or environment.get("MINICONTAINER_ROOT")
    runroot = _chosen("--runroot", runroot) or environment.get("MINICONTAINER_RUNROOT")
    root = root or _default_root(environment, user)
    return Paths(absolute(root), absolute(runroot or _default_runroot(environment, user)))


def absolute(path: str) -> str:
    """`path` from the root directory, cleaned. Raises UsageError if that cannot be known."""
    try:
        return "/" + os.path.abspath(path).lstrip("/")
    except OSError:
        raise UsageError(
            f"{path} is relative, and the working directory is gone or unreadable",
            hint="give an absolute path",
        ) from None


def _chosen(flag: str, value: str | None) -> str | None:
    if value == "":
        raise UsageError(f'invalid argument "" for "{flag}" flag: expected a directory')
    return value


def _default_root(environment: Mapping[str, str], user: int) -> str:
    if user == 0:
        return "/var/lib/minicontainer"
    base = environment.get("XDG_DATA_HOME", "")
    if not base.startswith("/"):  # the specification ignores relative ones
        base = f"{_home(environment, user)}/.local/share"
    return f"{base}/minicontainer"


def _default_runroot(environment: Mapping[str, str], user: int) -> str:
    if user == 0:
        return "/run/minicontainer"
    for base in (environment.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}"):
        if base.startswith("/") and os.path.isdir(base):
            return f"{base}/minicontainer"
    # No session directory: below our own data, never in a directory others can write to.  State
    # carries the boot's id, so surviving a reboot does no harm.
    return f"{_default_root(environment, user)}/run"


def _home(environment: Mapping[str, str], user: int) -> str:
    home = environment.get("HOME", "")
    if home.startswith("/"):
        return home.rstrip("/")
    import pwd

    try:
        return pwd.getpwuid(user).pw_dir.rstrip("/")
    except KeyError:
        raise UsageError(
            f"user {user} has no home directory to keep containers in",
            hint="set HOME, or give --root and --runroot",
        ) from None
