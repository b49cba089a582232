"""`login` and `logout`: credentials for registries, checked before they are kept."""

from __future__ import annotations

import os

from minicontainer.cli import output
from minicontainer.cli.options import Command, Option, Refusal, flag
from minicontainer.cli.pull import AUTHFILE, INSECURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_STDIN = 0
_LARGEST_PASSWORD = 64 << 10


def login(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Ask the registry whether it takes the password, and keep it."""
    from minicontainer.engine import images
    from minicontainer.image import auth, registry

    name = auth.registry_name(arguments[0] if arguments else "")
    how = images.settings(authfile=flags["authfile"] or "", insecure=flags["insecure"])
    user = flags["username"]
    if flags["password"] is not None and flags["password_stdin"]:
        raise Refusal("--password and --password-stdin are mutually exclusive")
    if flags["password_stdin"] and not user:
        raise Refusal("must provide --username with --password-stdin")
    if not user:
        user = _ask(f"Username for {name}: ", hidden=False)
    if flags["password"] is not None:
        output.warning("a password on the command line can be seen: use --password-stdin")
        password = flags["password"]
    elif flags["password_stdin"]:
        password = _read_password()
    else:
        password = _ask("Password: ", hidden=True)
    if not user or not password:
        raise Refusal("a login takes a username and a password that are not empty")
    registry.check_login(name, user, password, how)
    place = auth.store(name, user, password, how.places)
    output.line(f"Login Succeeded, kept in {place}")
    return 0


def logout(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Forget the credentials for a registry."""
    from minicontainer.engine import images
    from minicontainer.image import auth

    name = auth.registry_name(arguments[0] if arguments else "")
    if auth.erase(name, images.places(flags["authfile"] or "")):
        output.line(f"Removing login credentials for {name}")
    else:
        output.line(f"Not logged in to {name}")
    return 0


def _read_password() -> str:
    data = b""
    while len(data) < _LARGEST_PASSWORD and (piece := os.read(_STDIN, _LARGEST_PASSWORD)):
        data += piece
    text = data.decode("utf-8", "surrogateescape")
    if text.endswith("\n"):
        text = text[:-1].rstrip("\r")
    return text


def _ask(question: str, *, hidden: bool) -> str:
    """One line typed at the terminal."""
    if not os.isatty(_STDIN):
        raise Refusal(
            "there is no terminal to ask for the password at",
            hint="use --username NAME --password-stdin",
        )
    if hidden:
        import getpass

        return getpass.getpass(question)
    output.write(question.encode(), output.STDERR)
    return os.read(_STDIN, 1024).decode("utf-8", "surrogateescape").strip()


COMMANDS = (
    Command(
        "login",
        "[OPTIONS] [REGISTRY]",
        "Keep a username and password for a registry",
        (
            Option("-u, --username", str, "the username", "NAME"),
            Option("-p, --password", str, "the password; better on standard input", "PASSWORD"),
            flag("--password-stdin", "read the password from standard input"),
            INSECURE,
            AUTHFILE,
        ),
        perform=login,
        maximum=1,
    ),
    Command(
        "logout",
        "[OPTIONS] [REGISTRY]",
        "Forget the username and password for a registry",
        (AUTHFILE,),
        perform=logout,
        maximum=1,
    ),
)
