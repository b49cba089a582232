"""The rtnetlink codec, on bytes recorded from `ip` and from the kernel (little-endian)."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from minicontainer import kernel
from minicontainer.kernel import netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="recorded on little-endian")

ACK = kernel.NLM_F_REQUEST | kernel.NLM_F_ACK
NEW = ACK | kernel.NLM_F_CREATE | kernel.NLM_F_EXCL

# ip link set lo up
LO_UP = "2000000010000500647d046b0000000000000000010000000100000001000000"
BRIDGE = (
    "4400000010000506020000000000000000000000000000000000000000000000"
    "08000300627230001c0012800b000100627269646765000" + "00c0002800800010000000000"
)
VETH = (
    "6c00000010000506030000000000000000000000000000000100000001000000"
    "070003007630000008000a00020000003c0012800900010076657468000000002c000280"
    "28000180000000000000000000000000000000000900030065746830000000000800130062730000"
)
ADDRESS = "280000001400050604000000000000000218000002000000080002000a010203080001000a010203"
ACKNOWLEDGED = "240000000200000101000000627300000000000020000000100005000100000000000000"
ADDRESSES = (
    "4c000000140002000500000062730000020880fe01000000080001007f000001080002007f000001"
    "070003006c6f0000080008008000000014000600ffffffffffffffff0aef03000aef0300"
    "4c0000001400020005000000627300000218800002000000080001000a010203080002000a010203"
    "0800030062723000080008008000000014000600ffffffffffffffff0aef03000aef0300"
)
DONE = "1400000003000200050000006273000000000000"
NO_GATEWAY = (
    "440000000200000306000000627300009bffffff24000000180005060600000000000000"
    "200001004e657874686f702068617320696e76616c6964206761746577617900"
)
NO_DEVICE = "24000000020000010700000062730000edffffff2c000000120005000700000000000000"
LINK_UP = {"index": 1, "flags": kernel.IFF_UP, "change": kernel.IFF_UP}


class Recorded(netlink.Connection):
    """A connection whose answers are a pipe's content."""

    def __init__(self, *answers: str) -> None:
        self.sequence = 0
        # A datagram a read: a socket pair keeps the bounds as a netlink socket does.
        self.fd, other = kernel.socketpair()
        for answer in answers:
            kernel.send_message(other, bytes.fromhex(answer))
        os.close(other)


@pytest.mark.parametrize(
    ("kind", "flags", "sequence", "values", "recorded"),
    [
        (kernel.RTM_NEWLINK, ACK, 0x6B047D64, LINK_UP, LO_UP),
        (
            kernel.RTM_NEWLINK,
            NEW,
            2,
            {"IFNAME": "br0", "LINKINFO": {"KIND": "bridge", "DATA": {"FORWARD_DELAY": 0}}},
            BRIDGE,
        ),
        (
            kernel.RTM_NEWLINK,
            NEW,
            3,
            {
                "IFNAME": "v0",
                "MASTER": 2,
                "flags": kernel.IFF_UP,
                "change": kernel.IFF_UP,
                "LINKINFO": {
                    "KIND": "veth",
                    "DATA": {"PEER": {"IFNAME": "eth0", "NET_NS_PID": 0x7362}},
                },
            },
            VETH,
        ),
        (
            kernel.RTM_NEWADDR,
            NEW,
            4,
            {"family": 2, "prefix": 24, "index": 2, "LOCAL": b"\n\1\2\3", "ADDRESS": b"\n\1\2\3"},
            ADDRESS,
        ),
    ],
)
def test_messages_are_those_that_were_recorded(
    kind: int, flags: int, sequence: int, values: dict[Any, Any], recorded: str
) -> None:
    message = netlink.encode(kind, flags, sequence, values)
    assert message.hex() == recorded
    ((header, body),) = netlink.decode(message)
    assert (header["type"], header["flags"], header["sequence"]) == (kind, flags, sequence)
    decoded = netlink.decode_body(netlink._FAMILIES[kind // 4], body)
    assert {name: decoded[name] for name in values if name != "LINKINFO"} == {
        name: value for name, value in values.items() if name != "LINKINFO"
    }
    if "LINKINFO" in values:
        assert decoded["LINKINFO"]["KIND"] == values["LINKINFO"]["KIND"]


def test_veth_peers_come_back_whole() -> None:
    ((_, body),) = netlink.decode(bytes.fromhex(VETH))
    decoded = netlink.decode_body(netlink._FAMILIES[kernel.RTM_NEWLINK // 4], body)
    peer = decoded["LINKINFO"]["DATA"]["PEER"]
    assert (peer["IFNAME"], peer["NET_NS_PID"], peer["index"]) == ("eth0", 0x7362, 0)


def test_a_dump_is_read_to_its_end() -> None:
    found = Recorded(ADDRESSES, DONE).answers(5)
    assert [address["LABEL"] for address in found] == ["lo", "br0"]
    assert found[1]["LOCAL"] == b"\n\1\2\3"
    assert (found[1]["prefix"], found[1]["index"]) == (24, 2)
    assert found[0][kernel.IFA_CACHEINFO][:8] == b"\xff" * 8  # not in the tables: by number


def test_a_dump_that_changed_meanwhile_is_not_believed() -> None:
    done = bytearray.fromhex(DONE)
    done[6] |= kernel.NLM_F_DUMP_INTR
    with pytest.raises(InterruptedError):
        Recorded(done.hex()).answers(5)


def test_late_answers_to_others_are_passed_over() -> None:
    assert Recorded(NO_GATEWAY, ACKNOWLEDGED).answers(1) == []


def test_the_kernels_words_are_the_detail() -> None:
    with pytest.raises(OSError) as caught:
        Recorded(NO_GATEWAY).answers(6)
    assert caught.value.errno == errno.ENETUNREACH
    assert caught.value.detail == "Nexthop has invalid gateway"  # type: ignore[attr-defined]


def test_a_refused_request_says_what_was_asked() -> None:
    connection = Recorded(NO_DEVICE)
    connection.sequence = 6
    with pytest.raises(BrokenPipeError):  # nobody at the other end of the recording
        connection.index("nope")
    with pytest.raises(OSError) as caught:
        connection.answers(7)
    assert caught.value.errno == errno.ENODEV
    text = netlink.describe(kernel.RTM_GETLINK, 0, {"IFNAME": "nope"})
    assert text == "netlink(RTM_GETLINK, 0, {IFNAME=nope})"
    assert netlink.describe(kernel.RTM_NEWLINK, kernel.NLM_F_CREATE, LINK_UP) == (
        "netlink(RTM_NEWLINK, NLM_F_CREATE, {index=1, flags=IFF_UP, change=IFF_UP})"
    )
    assert netlink.describe(kernel.RTM_GETADDR, kernel.NLM_F_DUMP, {"family": 2}) == (
        "netlink(RTM_GETADDR, NLM_F_DUMP, {family=2})"
    )


@pytest.mark.parametrize("cut", [1, 15, 17, 40])
def test_a_message_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ValueError):
        netlink.decode(bytes.fromhex(ADDRESSES)[:cut])


def test_an_attribute_that_lies_about_its_length_is_refused() -> None:
    for data in ("ff000100", "0300010000000000", "0000010000000000"):
        with pytest.raises(ValueError):
            netlink.decode_attributes({}, bytes.fromhex(data))


def test_unknown_names_are_errors_and_numbers_pass() -> None:
    with pytest.raises(KeyError):
        netlink.encode_attributes({}, {"NOPE": 1})
    assert netlink.encode_attributes({}, {7: b"abc"}).hex() == "0700070061626300"
    assert netlink.decode_attributes({}, bytes.fromhex("0700070061626300")) == {7: b"abc"}
