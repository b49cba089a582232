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
        "resolv.conf": _host_file("/etc/resolv.conf") if host_network else "",
    }
    texts["hosts"] = (texts["hosts"] or _HOSTS) + _extra_hosts(hostname, options, host_network)
    texts["resolv.conf"] += _resolver(options)
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


def _resolver(options: dict[str, Any]) -> str:
    lines = [f"nameserver {server}\n" for server in options.get("dns") or ()]
    search = [domain for domain in options.get("dns_search") or () if domain != "."]
    if search:
        lines.append(f"search {' '.join(search)}\n")
    if options.get("dns_option"):
        lines.append(f"options {' '.join(options['dns_option'])}\n")
    return "".join(lines)


def _host_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
