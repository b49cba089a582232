"""The Authorization header for one registry: asked for, kept, and renewed in long pulls.

A registry answers 401 with what it wants: Basic, or Bearer with the realm that gives out tokens
(distribution's token and oauth2 specifications).  Credentials go to the registry itself and to that
realm, nowhere else.
"""

from __future__ import annotations

import base64
import threading
import time
from urllib.parse import urlencode

from minicontainer import jsontext
from minicontainer.errors import RegistryError
from minicontainer.image import auth
from minicontainer.image.registry import failures, hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.image.auth import Credential
    from minicontainer.image.registry.hosts import Endpoint, Url
    from minicontainer.image.registry.wire import Response, Wire

LARGEST_REPLY = 4 << 20
_SHORTEST_LIFE = 60  # seconds; what a token without expires_in has
_MARGIN = 10  # seconds before its end at which a token is renewed
_CLIENT = "minicontainer"


class Authorizer:
    """What one endpoint wants to see; for several threads."""

    def __init__(self, wire: Wire, endpoint: Endpoint, repository: str) -> None:
        self._wire = wire
        self._endpoint = endpoint
        self._repository = repository
        self._lock = threading.Lock()
        self._header = ""
        self._expires: float | None = None
        self._challenge: dict[str, str] = {}
        self._origin: Url | None = None
        self._credential: Credential | None = None
        self._searched = False

    def header(self) -> str:
        """The value to send now, "" before anything was asked for."""
        with self._lock:
            if self._expires is not None and time.monotonic() > self._expires:
                assert self._origin is not None
                self._fetch(self._origin)
            return self._header

    def answer(self, response: Response, sent: str) -> bool:
        """React to a 401 of the registry; False if there is nothing better to send than `sent`."""
        challenges = dict(reversed(auth.parse_challenges(response.header("WWW-Authenticate"))))
        with self._lock:
            if self._header != sent:  # another thread was faster
                return True
            if "bearer" in challenges:
                self._challenge = challenges["bearer"]
                self._origin = response.url
                self._fetch(response.url)
            elif "basic" in challenges:
                self._header = self._basic()
            else:
                kinds = ", ".join(challenges) or "nothing"
                raise RegistryError(
                    f"{self._endpoint.name} wants authorization by {kinds:.60}, which is not spoken"
                )
            return bool(self._header) and self._header != sent

    def _basic(self) -> str:
        credential = self._find()
        if credential is None or credential.identity_token:
            return ""
        pair = f"{credential.username}:{credential.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"

    def _find(self) -> Credential | None:
        if not self._searched:
            settings = self._wire.settings
            self._credential = settings.credential
            if self._credential is None:
                name = self._endpoint.name
                self._credential = auth.find(name, self._repository, settings.places)
            self._searched = True
        return self._credential

    def _fetch(self, origin: Url) -> None:
        """A new token from the realm of the challenge."""
        realm = hosts.parse_url(self._challenge.get("realm", ""))
        hosts.check_followed(realm, origin, self._wire.settings, "the token realm")
        with self._ask(realm, origin) as response:
            if response.status != 200:
                raise self._refusal(response)
            if response.header("Content-Encoding").strip().lower() not in ("", "identity"):
                raise RegistryError(
                    f"the token of {realm.host} is encoded, which was not asked for"
                )
            try:
                token, life = _parse_reply(response.read_document(LARGEST_REPLY))
            except failures.BROKEN as failure:
                raise failures.from_exception("GET", realm, failure) from failure
        self._header = f"Bearer {token}"
        self._expires = time.monotonic() + max(life - _MARGIN, life / 2)

    def _ask(self, realm: Url, origin: Url) -> Response:
        credential = self._find()
        fields = [(key, self._challenge[key]) for key in ("service",) if self._challenge.get(key)]
        # Nothing is asked for where the registry names no scope: that is login's question.
        default = f"repository:{self._repository}:pull" if self._repository else ""
        scope = self._challenge.get("scope") or default
        fields += [("scope", part) for part in scope.split()]
        headers, body, method = {"Accept": "application/json"}, None, "GET"
        if credential and credential.identity_token:
            method = "POST"
            grant = [("grant_type", "refresh_token"), ("client_id", _CLIENT)]
            secret = [("refresh_token", credential.identity_token)]
            joined = [("scope", scope)] if scope else []
            kept = [field for field in fields if field[0] != "scope"]
            body = urlencode([*grant, *kept, *joined, *secret]).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if credential:
                fields.append(("account", credential.username))
                headers["Authorization"] = self._basic()
            query = urlencode(fields)
            joint = "&" if "?" in realm.target else "?"
            realm = realm._replace(
                target=f"{realm.target}{joint}{query}" if query else realm.target
            )
        same = realm.host == origin.host
        inward = same or hosts.is_loopback(origin.host)
        verify = self._endpoint.verify or not same
        name = self._endpoint.name if same and realm.port == origin.port else hosts.authority(realm)
        try:
            return self._wire.request(
                method, realm, headers, body, name=name, verify=verify, inward=inward
            )
        except failures.BROKEN as failure:
            raise failures.from_exception(method, realm, failure) from failure

    def _refusal(self, response: Response) -> RegistryError:
        where = hosts.url_text(response.url, query=False)
        code, message = failures.describe(response)
        if response.status in (400, 401, 403) and self._credential:
            text = f"unauthorized: {message or 'incorrect username or password'}"
            return RegistryError(
                f"{text} (credentials of {self._credential.source}, sent to {where})",
                status=response.status,
                code=code,
                url=where,
                hint="log in again with: minicontainer login",
            )
        if response.status in (401, 403):
            text = f"pull access denied for {self._repository}: no token without credentials"
            return RegistryError(
                text, status=401, code=code, url=where, hint="log in with: minicontainer login"
            )
        return failures.from_response("GET", response, self._repository)


def _parse_reply(data: bytes) -> tuple[str, float]:
    """Token and seconds of life. Raises RegistryError."""
    try:
        document = jsontext.loads(data.decode("utf-8"))
    except ValueError:
        document = None
    token = document.get("token") or document.get("access_token") if document else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise RegistryError("the token server answers without a token")
    assert isinstance(document, dict)
    life = document.get("expires_in")
    if not isinstance(life, (int, float)) or not 0 < life < 1 << 31:
        life = _SHORTEST_LIFE
    return token, float(life)
