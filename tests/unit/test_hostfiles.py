"""What a container's resolv.conf is made of."""

from __future__ import annotations

import pytest

from minicontainer.engine import hostfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST = """\
# made by hand
nameserver 127.0.0.1
nameserver 10.0.0.53
nameserver ::1
nameserver fe80::1%eth0
nameserver\tfd00::53
; another comment
domain old.example
search a.example b.example
options ndots:2 edns0

sortlist 10.0.0.0
"""
WITHOUT_LOCAL = """\
nameserver 10.0.0.53
nameserver fd00::53
domain old.example
search a.example b.example
options ndots:2 edns0
sortlist 10.0.0.0
"""


def resolver(text: str = HOST, network: str = "none", **options: Any) -> str:
    return hostfiles.resolver(text, {"network": network, **options})


def test_servers_that_only_the_host_reaches_are_left_out() -> None:
    assert resolver() == WITHOUT_LOCAL


def test_host_network_has_the_hosts_file_to_the_letter() -> None:
    assert resolver(network="host") == HOST
    assert resolver("no newline", network="host") == "no newline"


@pytest.mark.parametrize(
    ("options", "gone", "come"),
    [
        ({"dns": ["1.1.1.1", "::2"]}, "nameserver", "nameserver 1.1.1.1\nnameserver ::2\n"),
        ({"dns_search": ["x.example", "y"]}, ("search", "domain"), "search x.example y\n"),
        ({"dns_search": ["."]}, ("search", "domain"), ""),
        ({"dns_option": ["rotate"]}, "options", "options rotate\n"),
    ],
)
def test_what_is_given_replaces_its_kind(
    options: dict[str, Any], gone: str | tuple[str, ...], come: str
) -> None:
    kept = [line for line in WITHOUT_LOCAL.splitlines(True) if not line.startswith(gone)]
    assert resolver(**options) == "".join(kept) + come


def test_given_servers_replace_those_of_the_host_network_too() -> None:
    assert resolver("nameserver 127.0.0.1\n", network="host", dns=["::1"]) == "nameserver ::1\n"


@pytest.mark.parametrize("text", ["", "\n \n", "nameserver", "nameserver 127.0.0.53", "#", "x"])
def test_odd_files_do_no_harm(text: str) -> None:
    assert resolver(text) in ("", "x\n")
