"""The flags that `run` and `exec` share, and those for the caller's terminal; see `run_options`.

A module of its own because `exec` needs no more than this: the table of `run` costs it a
millisecond.
"""

from __future__ import annotations

import os

from minicontainer.cli import values
from minicontainer.cli.options import Option, Refusal, flag
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values

_TOTAL_LIMIT = 1 << 20

DETACH_KEYS = Option(
    "--detach-keys",
    values.detach_keys,
    "keys that detach, ctrl-p,ctrl-q if not given",
    "KEYS",
)
SIG_PROXY = flag("--sig-proxy", "pass signals on to the container", default=True)
ENVIRONMENT = (
    Option(
        "-e, --env", values.environment, "set a variable, or hand on the caller's",
        "NAME[=VALUE]", repeat=True,
    ),
    Option("--env-file", values.environment_file, "variables, one a line", "FILE", repeat=True),
)  # fmt: skip
WORKDIR = Option("-w, --workdir", values.workdir, "directory the command starts in", "DIR")
USER = Option("-u, --user", values.user, "name or number, and group", "USER[:GROUP]")


def join_environment(flags: Values) -> list[str]:
    """The variables of `--env-file`, then those of `-e`; `env_file` is taken out of `flags`."""
    listed: list[str] = [line for lines in flags.pop("env_file") for line in lines] + flags["env"]
    check_total("the environment", listed)
    return listed


def check_total(what: str, texts: list[str]) -> None:
    """Raises UsageError if `texts`, together called `what`, are too long."""
    if sum(map(len, texts)) > _TOTAL_LIMIT:
        raise UsageError(f"{what}: more than {_TOTAL_LIMIT} bytes in all")


def require_terminal(*, interactive: bool, tty: bool) -> None:
    """Raises Refusal for `-it` when standard input is no terminal."""
    if interactive and tty and not os.isatty(0):
        raise Refusal(
            "the input device is not a TTY",
            hint="leave out -t to feed input from a pipe or file",
        )
