"""Credentials for registries: where they are kept, how they are found, stored and removed.

The files are those of containers-auth.json(5) and of Docker's config.json, which have one format:
`auths`, `credHelpers`, `credsStore`.  Helpers speak the protocol of docker-credential-helpers.
Nothing here talks to a registry.
"""

from __future__ import annotations

import base64
import os

from minicontainer import jsontext, kernel, steps
from minicontainer.errors import Error
from minicontainer.image.reference import HUB
from minicontainer.primitives import commits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Mapping
    from typing import Any
else:
    from minicontainer.tuples import namedtuple

# Either username and password, or an identity_token ("" where there is none).  source: for people.
Credential = namedtuple("Credential", "username password identity_token source")

# Where to look: --authfile or "", the environment, the caller's home and, under sudo, the home of
# who called sudo ("" otherwise).
Places = namedtuple("Places", "authfile environment home caller_home")

HUB_SERVER = "https://index.docker.io/v1/"
HELPER_SECONDS = 10
LARGEST_FILE = 4 << 20
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_TOKEN_USER = "<token>"


def find(registry: str, repository: str, places: Places) -> Credential | None:
    """The credential for a repository: the first file that has one wins.

    Raises Error for a file or helper that cannot be read; says so where it is the file of the
    user who called sudo.
    """
    callers = _home_files(places.caller_home) if places.caller_home else []
    for path in [*files(places), *callers]:
        found = _find_in(path, registry, repository)
        if found is not None:
            if path in callers:
                steps.warn(f"using the credentials for {registry} in {path}, of who called sudo")
            return found
    return None


def files(places: Places) -> list[str]:
    """The files that may hold credentials, the most important first; few of them exist.

    Raises Error if --authfile names none.
    """
    environment: Mapping[str, str] = places.environment
    if places.authfile and not os.path.isfile(places.authfile):
        raise Error(f"--authfile {places.authfile}: no such file")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if not runtime and os.geteuid() == 0:
        volatile = "/run/containers/0/auth.json"
    else:
        volatile = f"{runtime}/containers/auth.json" if runtime.startswith("/") else ""
    found = [places.authfile, environment.get("REGISTRY_AUTH_FILE", ""), volatile]
    config = environment.get("XDG_CONFIG_HOME", "")
    if config.startswith("/"):
        found.append(f"{config}/containers/auth.json")
    docker = environment.get("DOCKER_CONFIG", "")
    homes = _home_files(places.home) if places.home else []
    if docker and homes:
        homes[-1] = f"{docker}/config.json"
    elif docker:
        homes = [f"{docker}/config.json"]
    return [path for path in [*found, *homes] if path]


def _home_files(home: str) -> list[str]:
    return [f"{home}/.config/containers/auth.json", f"{home}/.docker/config.json"]


def _find_in(path: str, registry: str, repository: str) -> Credential | None:
    """What one file has for the repository: a helper of the host, an entry, the common helper."""
    document = _load(path)
    helpers = document.get("credHelpers")
    for host in _aliases(registry) if isinstance(helpers, dict) else ():
        if isinstance(helpers, dict) and helpers.get(host):
            return _ask(helpers[host], registry, path)
    entry = _longest(document.get("auths"), f"{registry}/{repository}".rstrip("/"))
    if entry is not None:
        credential = _decode(entry, path, registry)
        if credential is not None:
            return credential
    store = document.get("credsStore")
    return _ask(store, registry, path) if store else None


def _load(path: str) -> dict[str, Any]:
    """The JSON object in an auth file, {} if it is missing or empty."""
    with steps.step("read the credentials in %s", path):
        try:
            with open(path, "rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
    try:
        document = jsontext.loads(data.decode("utf-8")) if data.strip() else {}
    except ValueError as failure:
        raise Error(f"{path} is not the JSON of an auth file: {failure}") from None
    if not isinstance(document, dict) or len(data) > LARGEST_FILE:
        raise Error(f"{path} is not an auth file")
    return document


def _aliases(registry: str) -> tuple[str, ...]:
    """The names a registry goes by in helper tables."""
    return (*_HUB_NAMES, HUB_SERVER) if registry == HUB else (registry, f"https://{registry}")


def _longest(auths: Any, name: str) -> dict[str, Any] | None:
    """The entry of `auths` whose key is the longest prefix of `name`, by whole parts."""
    best, best_length = None, -1
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        prefix = _prefix(key)
        fits = name == prefix or name.startswith(f"{prefix}/")
        if fits and isinstance(entry, dict) and entry and len(prefix) > best_length:
            best, best_length = entry, len(prefix)
    return best


def _prefix(key: str) -> str:
    """What a key of `auths` means: `https://quay.io/v2/` is quay.io, `quay.io/team` itself."""
    scheme, separator, rest = key.partition("://")
    host, _, path = (rest if separator else scheme).rstrip("/").partition("/")
    if separator or path in ("v1", "v2"):
        path = ""
    host = HUB if host in _HUB_NAMES else host
    return f"{host}/{path}" if path else host


def _decode(entry: dict[str, Any], path: str, registry: str) -> Credential | None:
    username, password = entry.get("username", ""), entry.get("password", "")
    encoded, token = entry.get("auth", ""), entry.get("identitytoken", "")
    if not all(isinstance(value, str) for value in (username, password, encoded, token)):
        raise Error(f"{path}: the entry for {registry} is malformed")
    if encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode("utf-8").rstrip("\0")
        except ValueError:  # binascii.Error, UnicodeDecodeError
            raise Error(f"{path}: the auth of {registry} is not base64") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise Error(f"{path}: the auth of {registry} is not user:password in base64")
    if not (username or token):
        return None
    return Credential(username, "" if token else password, token, path)


# Helpers


def _ask(helper: Any, registry: str, path: str) -> Credential | None:
    """What `docker-credential-HELPER get` knows about the registry."""
    reply = _run_helper(helper, "get", _server(registry), path)
    if reply is None:
        return None
    try:
        document = jsontext.loads(reply)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise Error(f"docker-credential-{helper} answers with something unreadable") from None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        return None
    source = f"docker-credential-{helper}"
    if username == _TOKEN_USER:
        return Credential("", "", secret, source)
    return Credential(username, secret, "", source)


def _run_helper(helper: Any, verb: str, text: str, path: str) -> str | None:
    """The output of a credential helper, None if it has no credentials. Raises Error."""
    import subprocess

    if not isinstance(helper, str) or not _is_helper_name(helper):
        raise Error(f"{path}: {helper!r:.80} is not the name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb],
            input=text.encode(),
            capture_output=True,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise Error(f"{path} asks for {program}, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise Error(f"{program} has not answered for {HELPER_SECONDS} seconds") from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0:
        return output
    said = " ".join((output + done.stderr.decode("utf-8", "replace")).split())
    if "credentials not found" in said:
        return None
    raise Error(f"{program} failed: {said[:300] or f'exit code {done.returncode}'}")


def _is_helper_name(name: str) -> bool:
    return 0 < len(name) < 100 and name.isascii() and name.replace("-", "a").isidentifier()


def _server(registry: str) -> str:
    return HUB_SERVER if registry == HUB else registry


# Login and logout


def registry_name(text: str) -> str:
    """The registry that a user of login means: `https://quay.io/v2/` is quay.io, "" the Hub."""
    return _prefix(text).partition("/")[0] if text else HUB


def store(registry: str, username: str, password: str, places: Places) -> str:
    """Keep a credential; returns the file or helper that has it now.

    An existing entry is replaced where it is; a new one goes to a file that survives a reboot.
    """
    path = _file_to_write(registry, places)
    document = _load(path)
    helper = (document.get("credHelpers") or {}).get(registry) or document.get("credsStore")
    if helper:
        message = {"ServerURL": _server(registry), "Username": username, "Secret": password}
        _run_helper(helper, "store", jsontext.dumps(message), path)
        return f"docker-credential-{helper}"
    auths = document.setdefault("auths", {})
    if not isinstance(auths, dict):
        raise Error(f"{path} is not an auth file: auths is no object")
    for key in [key for key in auths if _prefix(key) == registry]:
        del auths[key]
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
    docker = os.path.basename(path) == "config.json"
    auths[_server(registry) if docker else registry] = {"auth": encoded}
    _save(path, document)
    return path


def erase(registry: str, places: Places) -> list[str]:
    """Forget the credentials for a registry everywhere; returns the files and helpers that did."""
    erased = []
    for path in files(places):
        document = _load(path)
        helper = (document.get("credHelpers") or {}).get(registry) or document.get("credsStore")
        if helper and _ask(helper, registry, path) is not None:
            _run_helper(helper, "erase", _server(registry), path)
            erased.append(f"docker-credential-{helper}")
        auths = document.get("auths")
        if not isinstance(auths, dict):
            continue
        keys = [key for key in auths if _prefix(key) == registry]
        for key in keys:
            del auths[key]
        if keys:
            _save(path, document)
            erased.append(path)
    return erased


def _file_to_write(registry: str, places: Places) -> str:
    """--authfile or its variable; else the file that has the registry; else the lasting one."""
    named: str = places.authfile or places.environment.get("REGISTRY_AUTH_FILE", "")
    if named:
        return named
    candidates = files(places)
    for path in candidates:
        document = _load(path)
        auths = document.get("auths")
        known = isinstance(auths, dict) and any(_prefix(key) == registry for key in auths)
        if known or document.get("credsStore") or registry in (document.get("credHelpers") or {}):
            return path
    lasting = [path for path in candidates if not path.startswith("/run/")]
    if not lasting:
        raise Error("there is no home directory to keep credentials in", hint="give --authfile")
    return lasting[0]


def _save(path: str, document: dict[str, Any]) -> None:
    path = os.path.realpath(path)  # dotfiles are often symbolic links
    with steps.step("keep the credentials in %s", path):
        _make_directories(os.path.dirname(path))
        commits.replace(path, jsontext.dumps(document, indent=4) + "\n", durable=True)


def _make_directories(path: str) -> None:
    if path and not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        try:
            kernel.mkdir(path, 0o700)
        except FileExistsError:
            pass


# What a registry asks for


def parse_challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """The (scheme, parameters) of a WWW-Authenticate header (RFC 9110, 11.6.1), in order.

    Schemes and names of parameters in lower case; what cannot be understood is left out.
    """
    challenges: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        word, position = _token(header, position)
        if not word:
            position = _next_comma(header, position)
            continue
        after = _skip(header, position, " \t")
        if header[after : after + 1] == "=" and challenges and not _is_padding(header, after):
            value, position = _value(header, _skip(header, after + 1, " \t"))
            challenges[-1][1].setdefault(word.lower(), value)
        else:
            challenges.append((word.lower(), {}))
            position = after
        position = _skip(header, position, " \t,")
    return challenges


_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~/")


def _token(text: str, start: int) -> tuple[str, int]:
    end = start
    while end < len(text) and text[end] in _TOKEN:
        end += 1
    return text[start:end], end


def _value(text: str, start: int) -> tuple[str, int]:
    """A token or a quoted string; an unfinished string ends with the header."""
    if text[start : start + 1] != '"':
        return _token(text, start)
    pieces = []
    position = start + 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        pieces.append(text[position])
        position += 1
    return "".join(pieces), position + 1


def _skip(text: str, start: int, characters: str) -> int:
    while start < len(text) and text[start] in characters:
        start += 1
    return start


def _next_comma(text: str, start: int) -> int:
    """Past the next comma, so that one strange character costs one element only."""
    comma = text.find(",", start)
    return _skip(text, comma, " \t,") if comma >= 0 else len(text)


def _is_padding(text: str, start: int) -> bool:
    """Whether the = at `start` ends a token68 such as that of Negotiate."""
    rest = _skip(text, start, "=")
    return rest > start + 1 or text[rest : rest + 1] in ("", ",")
