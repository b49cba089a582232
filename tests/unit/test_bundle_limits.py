"""engine/bundle_limits: resources, rlimits and sysctls, and the refusals."""

from __future__ import annotations

import pytest

from tests.support.bundles import (
    HOST,
    ROOTLESS,
    compose,
    refusal,
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"memory": 32 << 20}, {"memory": {"limit": 32 << 20, "swap": 64 << 20}}),
        (
            {"memory": 32 << 20, "memory_swap": -1, "memory_reservation": 16 << 20},
            {"memory": {"limit": 32 << 20, "swap": -1, "reservation": 16 << 20}},
        ),
        (
            {"memory": 6 << 20, "memory_swap": 6 << 20},
            {"memory": {"limit": 6 << 20, "swap": 6 << 20}},
        ),
        ({"cpus": 500_000_000}, {"cpu": {"quota": 50_000, "period": 100_000}}),
        ({"cpus": 10_000_000}, {"cpu": {"quota": 1000, "period": 100_000}}),
        (
            {"cpu_quota": 2000, "cpu_period": 4000, "cpu_shares": 512},
            {"cpu": {"shares": 512, "quota": 2000, "period": 4000}},
        ),
        (
            {"cpuset_cpus": "0-1", "cpuset_mems": "0"},
            {"cpu": {"cpus": "0-1", "mems": "0"}},
        ),
    ],
)
def test_limits_are_ocis(options, expected):
    resources = compose(pids_limit=-1, **options)["linux"]["resources"]
    del resources["devices"]
    assert resources == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, {"limit": 2048}), (20, {"limit": 20}), (0, None), (-1, None)]
)
def test_pids(limit, expected):
    assert compose(pids_limit=limit)["linux"]["resources"].get("pids") == expected


def test_without_cgroups_no_default_limit_is_claimed():
    host = {**ROOTLESS, "cgroup_mode": "none"}
    assert "pids" not in compose(host)["linux"]["resources"]
    assert compose(host, pids_limit=5)["linux"]["resources"]["pids"] == {"limit": 5}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory": (6 << 20) - 1}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory": 8 << 20, "memory_swap": 7 << 20},
            "Minimum memoryswap limit should be larger than memory limit",
        ),
        (
            {"memory": 8 << 20, "memory_reservation": 9 << 20},
            "Minimum memory limit can not be less than memory reservation limit",
        ),
        ({"memory_swap": 8 << 20}, "--memory-swap needs --memory"),
        ({"memory_reservation": 1}, "Minimum memory reservation allowed is 6MB"),
        ({"cpus": 10**9, "cpu_quota": 5000}, "exclude each other"),
        ({"cpu_period": 999}, "CPU cfs period can not be less than 1ms or more than 1s"),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms"),
    ],
)
def test_contradictory_limits_are_refused(options, sentence):
    assert sentence in refusal(**options)


def test_sysctls_of_own_namespaces_are_taken():
    wanted = {"net.core.somaxconn": "5", "kernel.shmmax": "1", "fs.mqueue.queues_max": "9"}
    assert compose(sysctl=wanted)["linux"]["sysctl"] == {
        "net.ipv4.ping_group_range": "0 2147483647",
        **wanted,
    }
    replaced = {"net.ipv4.ping_group_range": "1 0"}
    assert compose(sysctl=replaced)["linux"]["sysctl"] == replaced
    assert compose(ROOTLESS)["linux"]["sysctl"] == {"net.ipv4.ping_group_range": "0 0"}
    assert compose(network="host")["linux"]["sysctl"] == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sysctl": {"kernel.panic": "1"}}, "sysctl 'kernel.panic' is not allowed: it belongs"),
        ({"sysctl": {"net/../kernel/panic": "1"}}, "is not allowed: it belongs to no namespace"),
        (
            {"sysctl": {"net.core.somaxconn": "1"}, "network": "host"},
            "sysctl 'net.core.somaxconn' is not allowed in the host's network namespace",
        ),
        ({"sysctl": {"kernel.sem": "1"}, "ipc": "host"}, "in the host's ipc namespace"),
        ({"sysctl": {"kernel.domainname": "x"}, "uts": "host"}, "in the host's uts namespace"),
    ],
)
def test_sysctls_of_the_host_are_refused(options, sentence):
    assert sentence in refusal(**options)


def test_ulimits_are_rlimits_and_the_users_replace_the_defaults():
    host = {
        **HOST,
        "default_ulimits": [
            {"name": "nofile", "soft": 1, "hard": 2},
            {"name": "core", "soft": 0, "hard": 0},
        ],
    }
    ulimits = [
        {"name": "nofile", "soft": 1024, "hard": 4096},
        {"name": "memlock", "soft": -1, "hard": -1},
    ]
    assert compose(host, ulimit=ulimits)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_MEMLOCK", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]


def test_an_impossible_ulimit_is_refused():
    assert refusal(ulimit=[{"name": "nofiles", "soft": 1, "hard": 1}]) == (
        "invalid ulimit type: nofiles"
    )
    assert refusal(ulimit=[{"name": "nofile", "soft": -1, "hard": 1}]) == (
        "ulimit nofile: the soft limit -1 is above the hard limit 1"
    )
