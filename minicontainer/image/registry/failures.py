"""What went wrong at a registry, in one line; and whether trying again may help.

Registries describe errors as JSON: `errors: [{code, message, detail}]` (distribution-spec).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time

from minicontainer import jsontext
from minicontainer.errors import RegistryError
from minicontainer.image.registry import hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.image.registry.hosts import Url
    from minicontainer.image.registry.wire import Response

# What requests and reading their answers raise when the connection breaks.
BROKEN = (OSError, http.client.HTTPException)

RETRIED = (408, 429, 500, 502, 503, 504)
REDIRECTS = (301, 302, 303, 307, 308)
_LARGEST_BODY = 64 << 10
_LONGEST_TEXT = 300


def is_passing(failure: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(failure, ssl.SSLError):
        # A reset or an early end in the middle of TLS.
        return isinstance(failure, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    kinds = (ConnectionError, TimeoutError, socket.timeout, http.client.IncompleteRead)
    return isinstance(failure, kinds) and not isinstance(failure, ConnectionRefusedError)


def early_end(missing_bytes: int) -> Exception:
    """What a body that ends too early amounts to; it may pass."""
    return http.client.IncompleteRead(b"", missing_bytes)


def is_no_tls(failure: BaseException) -> bool:
    """Whether a host that was asked by https may be one that only speaks plain http."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return False
    return isinstance(failure, (ssl.SSLError, ConnectionError, http.client.BadStatusLine))


def from_exception(method: str, url: Url, failure: BaseException) -> RegistryError:
    """The error for a request that got no answer, or no whole one."""
    where = hosts.url_text(url, query=False)
    hint = None
    if isinstance(failure, ssl.SSLCertVerificationError):
        text = f"its certificate is not trusted: {failure.verify_message}"
        hint = f"put its authority into /etc/minicontainer/certs.d/{hosts.authority(url)}/ca.crt"
    elif isinstance(failure, ssl.SSLError):
        text = f"TLS fails: {failure.reason or failure}"
    elif isinstance(failure, (TimeoutError, socket.timeout)):
        text = f"timed out: {_clean(str(failure))}" if str(failure) else "timed out"
    elif isinstance(failure, socket.gaierror):
        text = f"no address for {url.host}: {str(failure.strerror or failure).lower()}"
    elif isinstance(failure, http.client.IncompleteRead):
        text = "the connection ended early"
    elif isinstance(failure, OSError):
        text = _clean(str(failure.strerror or failure)).lower()
    else:
        text = f"this is not HTTP as it should be: {_clean(str(failure) or repr(failure))}"
    return RegistryError(f"{method} {where}: {text}", method=method, url=where, hint=hint)


def from_response(method: str, response: Response, name: str) -> RegistryError:
    """The error for an answer that is none; reads the (short) body. name: as the user wrote it."""
    status, where = response.status, hosts.url_text(response.url, query=False)
    code, message = describe(response)
    hint = None
    if status in (401, 403) and "/v2/" in where:  # not a storage that we were sent to
        text = f"pull access denied for {name}: {message or 'authorization is required'}"
        hint = "if it exists, log in with: minicontainer login"
    elif status == 429:
        wait = retry_after(response)
        text = f"toomanyrequests: {message or 'the registry limits how often it is asked'}"
        text += f" (try again in {wait:.0f} seconds)" if wait else ""
    elif status == 404 and "/manifests/" in where:
        text = f"{name}: manifest unknown: {message or 'the registry does not have it'}"
    else:
        text = f"{method} {where}: {status} {message or _reason(status)}"
    return RegistryError(text, method=method, url=where, status=status, code=code, hint=hint)


def describe(response: Response) -> tuple[str, str]:
    """Code and message of an error body, each "" if there is none."""
    try:
        data = response.read_document(_LARGEST_BODY)
        document = jsontext.loads(data.decode("utf-8"))
    except (*BROKEN, ValueError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(first, dict):
        return "", ""
    code, message = first.get("code"), first.get("message") or document.get("details")
    return (
        code[:64] if isinstance(code, str) else "",
        _clean(message) if isinstance(message, str) else "",
    )


def retry_after(response: Response) -> float | None:
    """The seconds that Retry-After asks for, as a number or a date; None if it does not."""
    text = response.header("Retry-After").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    import email.utils

    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment - time.time())


def _reason(status: int) -> str:
    return http.client.responses.get(status, "unknown status").lower()


def _clean(text: str) -> str:
    """One short printable line of what a stranger says."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}…"
