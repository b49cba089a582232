"""Composing a configuration from few options, checked on the way; for the tests of bundle*."""

from __future__ import annotations

import copy
import json

import pytest

from minicontainer import jsontext
from minicontainer.engine import bundle
from minicontainer.errors import UsageError
from minicontainer.paths import Paths
from minicontainer.runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATHS = Paths("/data", "/run/data")
ID = "0123456789abcdef" * 4
HOST: dict[str, Any] = {
    "bounding": (1 << 41) - 1,
    "cgroup_mode": "v2",
    "thermal": ["/sys/devices/system/cpu/cpu0/thermal_throttle"],
}
ONE_ID = [{"containerID": 0, "hostID": 1000, "size": 1}]
MANY_IDS = [*ONE_ID, {"containerID": 1, "hostID": 100000, "size": 65536}]
ROOTLESS = {**HOST, "rootless": True, "uid_mappings": MANY_IDS, "gid_mappings": MANY_IDS}


def compose(host: Any = None, image: Any = None, **options: Any) -> dict[str, Any]:
    """The configuration for `options`, a command and the network `none` added; always valid."""
    given = {"command": ["true"], "network": "none", **options}
    before = copy.deepcopy((given, host, image))
    config = bundle.compose(ID, given, paths=PATHS, host=host or HOST, image_config=image)
    assert (given, host, image) == before, "compose is pure"
    assert json.loads(jsontext.dumps(config)) == config
    spec.validate(config)
    return config


def mount(config: dict[str, Any], destination: str) -> Any:
    found = [entry for entry in config["mounts"] if entry["destination"] == destination]
    assert len(found) <= 1, found
    return found[0] if found else None


def options_at(config: dict[str, Any], destination: str) -> list[str]:
    options: list[str] = mount(config, destination)["options"]
    return options


def kinds(config: dict[str, Any]) -> dict[str, Any]:
    return {entry["type"]: entry.get("path") for entry in config["linux"]["namespaces"]}


def refusal(**options: Any) -> str:
    with pytest.raises(UsageError) as refused:
        compose(**options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def bind(destination: str, *words: str, source: str = "/src") -> dict[str, Any]:
    return {
        "type": "bind",
        "source": source,
        "destination": destination,
        "options": list(words),
        "create": True,
    }


def tmpfs(destination: str, *words: str) -> dict[str, Any]:
    return {
        "type": "tmpfs",
        "source": "tmpfs",
        "destination": destination,
        "options": list(words),
        "create": False,
    }
