"""primitives/capabilities: names, the set a container gets, and the acts, done by a real child."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import kernel
from minicontainer.errors import UsageError
from minicontainer.primitives import capabilities
from tests.support.child import in_child, status_masks

FULL = (1 << len(capabilities.NAMES)) - 1
NAMES = st.sampled_from([*capabilities.NAMES, "ALL", "net_admin", "Cap_Sys_Admin", "all"])


def bit(name: str) -> int:
    return 1 << capabilities.NUMBERS[f"CAP_{name}"]


def test_the_names_are_those_of_the_kernel_headers():
    constants = {name: value for name, value in vars(kernel).items() if name.startswith("CAP_")}
    assert constants.pop("CAP_LAST_CAP") == len(capabilities.NAMES) - 1
    assert constants == capabilities.NUMBERS


def test_the_default_is_the_eleven_of_the_confinement_page():
    assert capabilities.DEFAULT == 0x00000000800405FB
    assert capabilities.names(capabilities.DEFAULT) == [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_SETFCAP",
    ]


def test_last_cap_is_the_highest_number_the_kernel_knows():
    last = capabilities.last_cap()
    kernel.prctl(kernel.PR_CAPBSET_READ, last)
    with pytest.raises(OSError) as failure:
        kernel.prctl(kernel.PR_CAPBSET_READ, last + 1)
    assert failure.value.errno == errno.EINVAL
    assert capabilities.full() == (1 << last + 1) - 1


def test_bounding_is_what_prctl_says_cap_by_cap():
    found = sum(
        kernel.prctl(kernel.PR_CAPBSET_READ, number) << number
        for number in range(capabilities.last_cap() + 1)
    )
    assert capabilities.bounding() == found


@pytest.mark.parametrize("written", ["NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", "Net_Admin"])
def test_a_name_is_read_with_and_without_prefix_in_any_case(written):
    assert capabilities.compute([written], ["ALL"], False, FULL) == bit("NET_ADMIN")


def test_names_and_mask_are_each_others_inverse():
    assert capabilities.mask(capabilities.names(FULL)) == FULL
    assert capabilities.mask(["CAP_NO_SUCH", "CAP_KILL"]) == bit("KILL")
    assert capabilities.names(1 << 63 | 1) == ["CAP_CHOWN"]


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ([], [], False, capabilities.DEFAULT),
        (["NET_ADMIN"], [], False, capabilities.DEFAULT | bit("NET_ADMIN")),
        ([], ["KILL"], False, capabilities.DEFAULT & ~bit("KILL")),
        ([], ["NET_ADMIN"], False, capabilities.DEFAULT),
        (["ALL"], [], False, FULL),
        ([], ["ALL"], False, 0),
        (["ALL"], ["SYS_ADMIN"], False, FULL & ~bit("SYS_ADMIN")),
        (["SYS_ADMIN"], ["ALL"], False, bit("SYS_ADMIN")),
        (["SYS_ADMIN"], ["KILL", "ALL", "CHOWN"], False, bit("SYS_ADMIN")),
        (["KILL"], ["KILL"], False, capabilities.DEFAULT),
        ([], [], True, FULL),
        ([], ["SYS_MODULE"], True, FULL & ~bit("SYS_MODULE")),
    ],
)
def test_all_applies_before_single_names(add, drop, privileged, expected):
    assert capabilities.compute(add, drop, privileged, FULL) == expected


def test_an_added_capability_outside_our_bounding_set_is_an_error_naming_it():
    available = FULL & ~bit("SYS_RESOURCE")
    with pytest.raises(UsageError, match="--cap-add CAP_SYS_RESOURCE: not in our own bounding set"):
        capabilities.compute(["sys_resource"], [], False, available)
    assert capabilities.compute(["ALL"], [], False, available) == available
    assert capabilities.compute([], [], True, available) == available


@pytest.mark.parametrize(
    ("add", "drop", "sentence"),
    [
        (["NO_SUCH"], [], '--cap-add: unknown capability "NO_SUCH"'),
        ([], [""], '--cap-drop: unknown capability ""'),
        (["ALL"], ["all"], "--cap-add ALL and --cap-drop ALL contradict each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(add, drop, sentence):
    with pytest.raises(UsageError) as refusal:
        capabilities.compute(add, drop, False, FULL)
    assert str(refusal.value) == sentence


@given(st.lists(NAMES), st.lists(NAMES), st.booleans(), st.integers(0, FULL))
def test_the_result_is_never_wider_than_what_is_available(add, drop, privileged, available):
    try:
        bits = capabilities.compute(add, drop, privileged, available)
    except UsageError:
        return
    assert bits & ~available == 0


def test_oci_sets_are_as_given_with_a_warning_for_each_name_not_granted():
    masks, warnings = capabilities.sets(
        {
            "bounding": ["CAP_KILL", "CAP_NO_SUCH", "CAP_CHOWN"],
            "permitted": ["CAP_KILL"],
            "effective": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_SYS_TIME"],
            "ambient": ["CAP_KILL", "CAP_CHOWN"],
        },
        FULL & ~bit("SYS_TIME"),
    )
    assert masks == {
        "bounding": bit("KILL") | bit("CHOWN"),
        "permitted": bit("KILL"),
        "effective": bit("KILL"),
        "inheritable": bit("KILL"),
        "ambient": bit("KILL"),
    }
    assert warnings == [
        "bounding capability CAP_NO_SUCH is unknown",
        "inheritable capability CAP_SYS_TIME cannot be granted",
        "effective capability CAP_CHOWN cannot be granted",
        "ambient capability CAP_CHOWN cannot be granted",
    ]


@pytest.mark.root
def test_drop_bounding_leaves_exactly_what_is_kept():
    def act() -> dict[str, int]:
        capabilities.drop_bounding(capabilities.DEFAULT)
        return status_masks()

    assert in_child(act)["CapBnd"] == capabilities.DEFAULT & capabilities.bounding()


@pytest.mark.root
def test_drop_bounding_without_setpcap_refuses_only_what_is_there_to_drop():
    def act() -> list[object]:
        everything = capabilities.bounding()
        kernel.setresuid(65534, 65534, 65534)
        capabilities.drop_bounding(everything)
        try:
            capabilities.drop_bounding(0)
        except PermissionError as failure:
            return [status_masks()["CapBnd"] == everything, failure.call]
        return [False, ""]

    untouched, call = in_child(act)
    assert untouched
    assert call.startswith("prctl(PR_CAPBSET_DROP")


@pytest.mark.root
def test_the_ambient_set_is_replaced():
    def act() -> list[int]:
        _, permitted, _ = kernel.capget()
        two = bit("KILL") | bit("CHOWN")
        capabilities.set_capabilities(permitted, permitted, two)
        capabilities.set_ambient(two)
        first = status_masks()["CapAmb"]
        capabilities.set_ambient(bit("CHOWN"))
        return [first, status_masks()["CapAmb"]]

    assert in_child(act) == [bit("KILL") | bit("CHOWN"), bit("CHOWN")]


def test_set_capabilities_cannot_grow_the_permitted_set():
    def act() -> int:
        if os.geteuid() == 0:
            kernel.setresuid(65534, 65534, 65534)
        try:
            capabilities.set_capabilities(1, 1, 0)
        except PermissionError as failure:
            return failure.errno or 0
        return 0

    assert in_child(act) == errno.EPERM
