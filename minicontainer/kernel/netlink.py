"""rtnetlink: messages as dictionaries, both ways, and the socket they travel on.

    connection = netlink.Connection()
    connection.request("RTM_NEWLINK", {"index": 1, "flags": IFF_UP, "change": IFF_UP})

A message is its fixed header's fields and its attributes by their kernel names without prefix:
`{"index": 2, "IFNAME": "eth0", "LINKINFO": {"KIND": "veth", ...}}`.  What a field or attribute
is stands in tables; an attribute that is not in them may be given and is given as `bytes`, by
number.  Which messages to send is decided above.  Man pages: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import os
import sys

from minicontainer.kernel import constants as c
from minicontainer.kernel.sockets import netlink_open, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Message = dict[str, Any]

_ORDER = sys.byteorder
_NLMSGHDR = (("length", 4), ("type", 2), ("flags", 2), ("sequence", 4), ("port", 4))

# Fixed headers: fields with their sizes; a negative size is a signed field, "" is padding.
_IFINFOMSG = (("family", 1), ("", 1), ("type", 2), ("index", -4), ("flags", 4), ("change", 4))
_IFADDRMSG = (("family", 1), ("prefix", 1), ("flags", 1), ("scope", 1), ("index", 4))
_RTMSG = (
    ("family", 1),
    ("destination_length", 1),
    ("source_length", 1),
    ("tos", 1),
    ("table", 1),
    ("protocol", 1),
    ("scope", 1),
    ("type", 1),
    ("flags", 4),
)
_NDMSG = (
    ("family", 1),
    ("", 1),
    ("", 2),
    ("index", -4),
    ("state", 2),
    ("flags", 1),
    ("type", 1),
)

# Attributes: name: (number, kind).  Kinds: 1 2 4 8 (unsigned numbers of that size), "text",
# "bytes", a table (nested attributes), a (header, table) pair (a message within the message).
_ADDRESSES = {
    "ADDRESS": (c.IFA_ADDRESS, "bytes"),
    "LOCAL": (c.IFA_LOCAL, "bytes"),
    "LABEL": (c.IFA_LABEL, "text"),
    "BROADCAST": (c.IFA_BROADCAST, "bytes"),
    "FLAGS": (c.IFA_FLAGS, 4),
}
_ROUTES = {
    "DST": (c.RTA_DST, "bytes"),
    "SRC": (c.RTA_SRC, "bytes"),
    "OIF": (c.RTA_OIF, 4),
    "GATEWAY": (c.RTA_GATEWAY, "bytes"),
    "PRIORITY": (c.RTA_PRIORITY, 4),
    "PREFSRC": (c.RTA_PREFSRC, "bytes"),
    "TABLE": (c.RTA_TABLE, 4),
}
_NEIGHBOURS = {"DST": (c.NDA_DST, "bytes"), "LLADDR": (c.NDA_LLADDR, "bytes")}
_BRIDGE = {
    "FORWARD_DELAY": (c.IFLA_BR_FORWARD_DELAY, 4),
    "STP_STATE": (c.IFLA_BR_STP_STATE, 4),
    "AGEING_TIME": (c.IFLA_BR_AGEING_TIME, 4),
}
_BRIDGE_PORT = {
    "MODE": (c.IFLA_BRPORT_MODE, 1),
    "LEARNING": (c.IFLA_BRPORT_LEARNING, 1),
    "ISOLATED": (c.IFLA_BRPORT_ISOLATED, 1),
}
_LINKS: dict[str, tuple[int, Any]] = {
    "ADDRESS": (c.IFLA_ADDRESS, "bytes"),
    "BROADCAST": (c.IFLA_BROADCAST, "bytes"),
    "IFNAME": (c.IFLA_IFNAME, "text"),
    "MTU": (c.IFLA_MTU, 4),
    "LINK": (c.IFLA_LINK, 4),
    "MASTER": (c.IFLA_MASTER, 4),
    "TXQLEN": (c.IFLA_TXQLEN, 4),
    "OPERSTATE": (c.IFLA_OPERSTATE, 1),
    "NET_NS_PID": (c.IFLA_NET_NS_PID, 4),
    "NET_NS_FD": (c.IFLA_NET_NS_FD, 4),
    "IFALIAS": (c.IFLA_IFALIAS, "text"),
    "GROUP": (c.IFLA_GROUP, 4),
    "EXT_MASK": (c.IFLA_EXT_MASK, 4),
    "NUM_TX_QUEUES": (c.IFLA_NUM_TX_QUEUES, 4),
    "NUM_RX_QUEUES": (c.IFLA_NUM_RX_QUEUES, 4),
    "LINK_NETNSID": (c.IFLA_LINK_NETNSID, 4),
}
_VETH = {"PEER": (c.VETH_INFO_PEER, (_IFINFOMSG, _LINKS))}
# What a link's INFO_DATA holds is said by its INFO_KIND, what its INFO_SLAVE_DATA by the other.
_LINK_DATA = {"veth": _VETH, "bridge": _BRIDGE}
_LINK_SLAVE_DATA = {"bridge": _BRIDGE_PORT}
_LINKS["LINKINFO"] = (
    c.IFLA_LINKINFO,
    {
        "KIND": (c.IFLA_INFO_KIND, "text"),
        "DATA": (c.IFLA_INFO_DATA, _LINK_DATA),
        "SLAVE_KIND": (c.IFLA_INFO_SLAVE_KIND, "text"),
        "SLAVE_DATA": (c.IFLA_INFO_SLAVE_DATA, _LINK_SLAVE_DATA),
    },
)
# Message types come in fours: NEW, DEL, GET, SET.
_FAMILIES = {
    c.RTM_NEWLINK // 4: (_IFINFOMSG, _LINKS),
    c.RTM_NEWADDR // 4: (_IFADDRMSG, _ADDRESSES),
    c.RTM_NEWROUTE // 4: (_RTMSG, _ROUTES),
    c.RTM_NEWNEIGH // 4: (_NDMSG, _NEIGHBOURS),
}
_NESTED = c.NLA_F_NESTED
_TYPE_MASK = 0x3FFF


def _fields(layout: tuple[tuple[str, int], ...], values: Mapping[str, Any]) -> bytes:
    return b"".join(
        [
            int(values.get(name, 0)).to_bytes(abs(size), _ORDER, signed=size < 0)
            for name, size in layout
        ]
    )


def _read_fields(layout: tuple[tuple[str, int], ...], data: bytes) -> tuple[Message, bytes]:
    values: Message = {}
    offset = 0
    for name, size in layout:
        end = offset + abs(size)
        if name:
            values[name] = int.from_bytes(data[offset:end], _ORDER, signed=size < 0)
        offset = end
    return values, data[offset:]


def _attribute(number: int, payload: bytes) -> bytes:
    length = (len(payload) + 4).to_bytes(2, _ORDER)
    return length + number.to_bytes(2, _ORDER) + payload + b"\0" * (-len(payload) % 4)


def _table(kind: Any, values: Mapping[str, Any]) -> Any:
    """Link data are laid out by the kind that stands beside them."""
    if kind is _LINK_DATA:
        return kind.get(values.get("KIND", ""), {})
    if kind is _LINK_SLAVE_DATA:
        return kind.get(values.get("SLAVE_KIND", ""), {})
    return kind


def encode_attributes(table: Mapping[str, Any], values: Mapping[Any, Any]) -> bytes:
    """Attributes as bytes; keys are names of the table, or numbers with `bytes` for values."""
    parts = []
    for name, value in values.items():
        number, kind = (name, "bytes") if isinstance(name, int) else table[name]
        kind = _table(kind, values)
        if isinstance(kind, int):
            parts.append(_attribute(number, int(value).to_bytes(kind, _ORDER)))
        elif kind == "text":
            parts.append(_attribute(number, value.encode() + b"\0"))
        elif kind == "bytes":
            parts.append(_attribute(number, value))
        elif isinstance(kind, tuple):
            parts.append(_attribute(number | _NESTED, encode_body(kind, value)))
        else:
            parts.append(_attribute(number | _NESTED, encode_attributes(kind, value)))
    return b"".join(parts)


def decode_attributes(table: Mapping[str, Any], data: bytes) -> dict[Any, Any]:
    """The attributes in `data`; those that the table does not know by number, as bytes."""
    names = {number: (name, kind) for name, (number, kind) in table.items()}
    values: dict[Any, Any] = {}
    while len(data) >= 4:
        length = int.from_bytes(data[:2], _ORDER)
        number = int.from_bytes(data[2:4], _ORDER) & _TYPE_MASK
        if not 4 <= length <= len(data):
            raise ValueError("netlink: an attribute is longer than its message")
        payload = data[4:length]
        name, kind = names.get(number, (number, "bytes"))
        kind = _table(kind, values)
        if isinstance(kind, int):
            values[name] = int.from_bytes(payload, _ORDER)
        elif kind == "text":
            values[name] = payload.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == "bytes":
            values[name] = payload
        elif isinstance(kind, tuple):
            values[name] = decode_body(kind, payload)
        else:
            values[name] = decode_attributes(kind, payload)
        data = data[(length + 3) & ~3 :]
    return values


def encode_body(family: tuple[Any, Any], values: Mapping[Any, Any]) -> bytes:
    """A message without its netlink header: fixed fields, then attributes."""
    header, table = family
    fixed = {name for name, _ in header}
    attributes = {name: value for name, value in values.items() if name not in fixed}
    return _fields(header, values) + encode_attributes(table, attributes)


def decode_body(family: tuple[Any, Any], data: bytes) -> dict[Any, Any]:
    """What `encode_body` made."""
    header, table = family
    values, rest = _read_fields(header, data)
    return {**values, **decode_attributes(table, rest)}


def encode(kind: int, flags: int, sequence: int, values: Mapping[Any, Any]) -> bytes:
    """A whole message of type RTM_*."""
    body = encode_body(_FAMILIES[kind // 4], values)
    header = {"length": 16 + len(body), "type": kind, "flags": flags, "sequence": sequence}
    return _fields(_NLMSGHDR, header) + body


def decode(data: bytes) -> list[tuple[Message, bytes]]:
    """The messages in a datagram, each as its netlink header's fields and its body."""
    messages = []
    while data:
        header, _ = _read_fields(_NLMSGHDR, data)
        length = header["length"]
        if not 16 <= length <= len(data):
            raise ValueError("netlink: a message is longer than its datagram")
        messages.append((header, data[16:length]))
        data = data[(length + 3) & ~3 :]
    return messages


def describe(kind: int, flags: int, values: Mapping[Any, Any]) -> str:
    """A request as text, for errors and the trace."""
    from minicontainer.kernel.decode import choice
    from minicontainer.kernel.decode import flags as spelled

    words = []
    for name, value in values.items():
        if name in ("flags", "change") and kind // 4 == c.RTM_NEWLINK // 4:
            value = spelled("IFF_", value)
        elif isinstance(value, bytes):
            value = value.hex()
        words.append(f"{name}={value}")
    # NLM_F_ of new objects share their bits with those of dumps.
    meaning = (
        "|".join(name for name, bit in _NEW_FLAGS if flags & bit)
        if kind % 4 == 0
        else spelled("NLM_F_", flags & ~(c.NLM_F_REQUEST | c.NLM_F_ACK))
    )
    return f"netlink({choice('RTM_', kind)}, {meaning or '0'}, {{{', '.join(words)}}})"


_NEW_FLAGS = (
    ("NLM_F_REPLACE", c.NLM_F_REPLACE),
    ("NLM_F_EXCL", c.NLM_F_EXCL),
    ("NLM_F_CREATE", c.NLM_F_CREATE),
    ("NLM_F_APPEND", c.NLM_F_APPEND),
)


def exchange(
    connection: Connection, kind: int, flags: int, values: Mapping[Any, Any]
) -> list[Message]:
    """Send one request and give what was answered; the trace rebinds this name."""
    connection.sequence += 1
    message = encode(kind, flags | c.NLM_F_REQUEST | c.NLM_F_ACK, connection.sequence, values)
    send(connection.fd, message)
    try:
        return connection.answers(connection.sequence)
    except OSError as failure:
        failure.call = describe(kind, flags, values)  # type: ignore[attr-defined]
        raise


class Connection:
    """A socket of the network namespace it is made in, wherever it is used later."""

    __slots__ = ("fd", "sequence")

    def __init__(self) -> None:
        self.fd = netlink_open(c.NETLINK_ROUTE)
        self.sequence = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; twice is once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def request(self, kind: int, values: Mapping[Any, Any], flags: int = 0) -> list[Message]:
        """Send one request RTM_* and wait for its end; the objects it answered.

        A refusal is an OSError with `call` and, as `detail`, the kernel's own words.
        """
        return exchange(self, kind, flags, values)

    def answers(self, sequence: int) -> list[Message]:
        """What the kernel says to one request, up to its acknowledgement.

        InterruptedError if what was listed changed meanwhile: the list may lack something.
        """
        found: list[Message] = []
        interrupted = 0
        while True:
            for header, body in decode(os.read(self.fd, 65536)):
                if header["sequence"] != sequence:
                    continue  # late words on a request that was given up
                interrupted |= header["flags"] & c.NLM_F_DUMP_INTR
                if header["type"] in (c.NLMSG_ERROR, c.NLMSG_DONE):
                    _raise(header, body)
                    if interrupted and header["type"] == c.NLMSG_DONE:
                        raise InterruptedError(4, os.strerror(4))  # EINTR
                    return found
                if header["type"] >= c.RTM_NEWLINK:
                    found.append(decode_body(_FAMILIES[header["type"] // 4], body))

    def set_up(self, index: int) -> None:
        """Bring a link up."""
        values = {"index": index, "flags": c.IFF_UP, "change": c.IFF_UP}
        self.request(c.RTM_NEWLINK, values)

    def index(self, name: str) -> int:
        """The number of the link with a name. OSError ENODEV if there is none."""
        return int(self.request(c.RTM_GETLINK, {"IFNAME": name})[0]["index"])


def _raise(header: Message, body: bytes) -> None:
    """Raise the error in an acknowledgement, if it is one."""
    number = -int.from_bytes(body[:4], _ORDER, signed=True) if len(body) >= 4 else 0
    if number == 0:
        return
    failure = OSError(number, os.strerror(number))
    if header["flags"] & c.NLM_F_ACK_TLVS and header["type"] == c.NLMSG_ERROR:
        # After the errno comes the request's header, or all of it where it is not capped.
        length = 16 if header["flags"] & c.NLM_F_CAPPED else int.from_bytes(body[4:8], _ORDER)
        words = decode_attributes(_ERROR, body[4 + ((length + 3) & ~3) :])
        failure.detail = words.get("MSG", "")  # type: ignore[attr-defined]
    raise failure


_ERROR = {"MSG": (c.NLMSGERR_ATTR_MSG, "text"), "OFFS": (c.NLMSGERR_ATTR_OFFS, 4)}


def link_up(index: int = 1) -> None:
    """Bring a link of the current network namespace up; 1 is the loopback device of each."""
    with Connection() as connection:
        connection.set_up(index)
