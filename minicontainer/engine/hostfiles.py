"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container, made anew at each start."""

from __future__ import annotations

import os

from minicontainer import kernel
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_FILES = ("hosts", "hostname", "resolv.conf")


def write(directory: str, hostname: str, options: dict[str, Any]) -> None:
    """Write the three files into `directory`, in place: a restarted container's binds stay true."""
    host_network = options.get("network") == "host"
    texts = {
        "hosts": _host_file("/etc/hosts") if host_network else "",
        "hostname": hostname + "\n",
        "resolv.conf": resolver(_host_resolver(host_network), options),
    }
    texts["hosts"] = (texts["hosts"] or _HOSTS) + _extra_hosts(hostname, options, host_network)
    with step("write the container's /etc files"):
        if not os.path.isdir(directory):
            kernel.mkdir(directory, 0o711)
        for name in _FILES:
            path = f"{directory}/{name}"
            flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_TRUNC | kernel.O_CLOEXEC
            fd = kernel.open(path, flags, 0o644)
            try:
                kernel.fchmod(fd, 0o644)
                kernel.write(fd, texts[name].encode("utf-8", "surrogateescape"))
            finally:
                kernel.close(fd)


def _extra_hosts(hostname: str, options: dict[str, Any], host_network: bool) -> str:
    lines = []
    for entry in options.get("add_host") or ():
        name, _, address = entry.partition(":")
        lines.append(f"{address}\t{name}\n")
    if not host_network:
        lines.append(f"127.0.1.1\t{hostname}\n")
    return "".join(lines)


def _host_resolver(host_network: bool) -> str:
    """The host's resolv.conf(5); that of systemd-resolved where its stub, which is out of reach
    from another network namespace, is the only server."""
    text = _host_file("/etc/resolv.conf")
    stub = [["nameserver", "127.0.0.53"]]
    if not host_network and [words for words in _words(text) if words[0] == "nameserver"] == stub:
        return _host_file("/run/systemd/resolve/resolv.conf")
    return text


def resolver(text: str, options: dict[str, Any]) -> str:
    """The container's resolv.conf: the host's `text`, what --dns and its like name replaced.

    Unless the network is the host's, servers on a loopback address or on one interface's link are
    left out.
    """
    given = {
        "nameserver": options.get("dns") or [],
        "search": options.get("dns_search") or [],
        "options": options.get("dns_option") or [],
    }
    host_network = options.get("network") == "host"
    if host_network and not any(given.values()):
        return text
    lines = [
        " ".join(words)
        for words in _words(text)
        if not given.get("search" if words[0] == "domain" else words[0])
        and (host_network or words[0] != "nameserver" or not _is_local(words[1:]))
    ]
    lines += [f"nameserver {server}" for server in given["nameserver"]]
    for kind in ("search", "options"):
        chosen = [word for word in given[kind] if word != "."]
        if chosen:
            lines.append(f"{kind} {' '.join(chosen)}")
    return "".join(f"{line}\n" for line in lines)


def _words(text: str) -> list[list[str]]:
    lines = [line.split() for line in text.splitlines()]
    return [words for words in lines if words and words[0][0] not in "#;"]


def _is_local(addresses: list[str]) -> bool:
    address = addresses[0] if addresses else ""
    return not address or address.startswith("127.") or address == "::1" or "%" in address


def _host_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
