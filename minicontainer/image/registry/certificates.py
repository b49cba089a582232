"""TLS contexts: the system's authorities, and those and the client certificates of certs.d.

`HOST[:PORT]/*.crt` are further authorities, `*.cert` with `*.key` are shown to the server; the
first directory of the list that has one for the host counts.  Format: dockerd's and
containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl

from minicontainer.errors import Error

# For Pythons whose OpenSSL looks for authorities in a place that this system does not have.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def context(name: str, directories: tuple[str, ...], *, verify: bool) -> ssl.SSLContext:
    """How to speak TLS with the host `name` (with its port, if one was given).

    Raises Error for certificates that cannot be loaded.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if verify:
        _load_system(made)
    else:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    _load_directory(made, _directory(name, directories))
    return made


def _load_system(made: ssl.SSLContext) -> None:
    made.load_default_certs()
    places = ssl.get_default_verify_paths()  # these obey SSL_CERT_FILE and SSL_CERT_DIR
    if places.cafile or (places.capath and os.listdir(places.capath)):
        return
    for bundle in _BUNDLES:
        if os.path.exists(bundle):
            made.load_verify_locations(bundle)
            return


def _directory(name: str, directories: tuple[str, ...]) -> str | None:
    for directory in directories:
        path = f"{directory}/{name}"
        if os.path.isdir(path):
            return path
    return None


def _load_directory(made: ssl.SSLContext, directory: str | None) -> None:
    if directory is None:
        return
    names = sorted(os.listdir(directory))
    for name in names:
        path = f"{directory}/{name}"
        try:
            if name.endswith(".crt"):
                made.load_verify_locations(path)
            elif name.endswith(".cert"):
                key = f"{name[:-5]}.key"
                if key not in names:
                    raise Error(f"{path} has no {key} beside it")
                made.load_cert_chain(path, f"{directory}/{key}")
        except (OSError, ssl.SSLError) as failure:
            raise Error(f"{path} cannot be loaded: {failure.strerror or failure}") from failure
