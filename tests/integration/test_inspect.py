"""inspect: facts in Docker's shape, true for every state of a container."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.runner import Engine, wait_until

pytestmark = pytest.mark.root

# INTERFACES C: what templates and scripts may rely on.
TOP = """Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name
    RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig
    GraphDriver Mounts Config NetworkSettings Status""".split()
STATE = """Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt
    FinishedAt""".split()
HOST_CONFIG = """Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove
    CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode PidMode UTSMode
    UsernsMode OomScoreAdj Privileged PublishAllPorts ReadonlyRootfs SecurityOpt Tmpfs ShmSize
    Sysctls Runtime CpuShares NanoCpus CpuPeriod CpuQuota CpusetCpus CpusetMems Memory
    MemoryReservation MemorySwap PidsLimit CgroupParent Devices Ulimits MaskedPaths
    ReadonlyPaths""".split()
CONFIG = """Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty
    OpenStdin StdinOnce Env Cmd Image Volumes WorkingDir Entrypoint OnBuild Labels StopSignal
    StopTimeout Rootfs""".split()
NETWORK = "SandboxKey Ports IPAddress IPPrefixLen Gateway MacAddress Networks".split()
ZERO = "0001-01-01T00:00:00Z"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def test_every_key_is_there_in_every_state(engine: Engine) -> None:
    engine.ok("create", "--name", "created", "--rootfs", engine.rootfs, "true")
    engine.ok("run", "--name", "exited", "--rootfs", engine.rootfs, "true")
    engine.detach("--name", "running")
    for name in ("created", "exited", "running"):
        facts = engine.inspect(name)
        assert set(TOP) <= facts.keys()
        assert set(STATE) <= facts["State"].keys()
        assert set(HOST_CONFIG) <= facts["HostConfig"].keys()
        assert set(CONFIG) <= facts["Config"].keys()
        assert set(NETWORK) <= facts["NetworkSettings"].keys()
        assert facts["Status"] == facts["State"]["Status"] == name
        assert facts["Name"] == f"/{name}"
        assert facts["Config"]["Rootfs"] == engine.rootfs
        assert TIME.fullmatch(facts["Created"])
        assert facts["GraphDriver"]["Data"]["MergedDir"] == ""


def test_the_state_is_what_happened(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "sh", "-c", "sleep 1000")
    state = engine.inspect("box")["State"]
    assert (state["Running"], state["Pid"], state["ExitCode"]) == (False, 0, 0)
    assert (state["StartedAt"], state["FinishedAt"]) == (ZERO, ZERO)
    engine.ok("start", "box")
    state = engine.inspect("box")["State"]
    assert (state["Running"], state["Paused"], state["FinishedAt"]) == (True, False, ZERO)
    assert os.path.exists(f"/proc/{state['Pid']}")
    assert TIME.fullmatch(state["StartedAt"])
    engine.ok("pause", "box")
    state = engine.inspect("box")["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    engine.ok("unpause", "box")
    engine.ok("kill", "box")
    engine.wait_for("box", "exited")
    state = engine.inspect("box")["State"]
    assert (state["Running"], state["Pid"], state["ExitCode"]) == (False, 0, 137)
    assert state["FinishedAt"] > state["StartedAt"]


def test_a_failed_start_is_told(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "/no/such/program")
    engine.fails(127, "start", "-a", "box")
    state = engine.inspect("box")["State"]
    assert state["ExitCode"] == 127 and "/no/such/program" in state["Error"]
    assert state["Status"] in ("created", "exited") and not state["Running"]


def test_a_restarting_container_says_so(engine: Engine) -> None:
    engine.detach("--name", "box", "--restart", "on-failure:3", command=["sh", "-c", "exit 7"])
    state = wait_until(
        lambda: (s := engine.inspect("box")["State"])["Status"] == "restarting" and s, "restarting"
    )
    assert (state["Restarting"], state["Pid"], state["ExitCode"]) == (True, 0, 7)
    wait_until(lambda: engine.inspect("box")["RestartCount"] == 3, "the third restart")
    engine.wait_for("box", "exited")


def test_options_are_shown_as_docker_shows_them(engine: Engine, tmp_path: Path) -> None:
    flags = (
        *("-m", "64m", "--memory-swap", "128m", "--memory-reservation", "32m", "--cpus", "0.5"),
        *("--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "77"),
        *("--cap-add", "net_raw", "--cap-drop", "chown", "--security-opt", "no-new-privileges"),
        *("-v", f"{tmp_path}:/data:ro", "--tmpfs", "/t:size=1m", "--shm-size", "2m"),
        *("--ulimit", "nofile=10:20", "--sysctl", "net.ipv4.ip_forward=1", "--read-only"),
        *("-e", "A=b", "-l", "x=y", "-w", "/tmp", "-u", "app", "--group-add", "video", "-i"),
        *("--stop-signal", "INT", "--stop-timeout", "3", "--restart", "on-failure:4", "-h", "host"),
        *("--domainname", "example.org", "--oom-score-adj", "100", "--pid", "host"),
        *("--log-opt", "max-size=1m", "--add-host", "a:1.2.3.4", "--dns", "9.9.9.9"),
        *("--device", "/dev/zero:/dev/other:r", "--entrypoint", "/bin/sh"),
    )
    engine.ok("create", "--name", "box", *flags, "--rootfs", engine.rootfs, "--", "-c", "true")
    facts = engine.inspect("box")
    host, config = facts["HostConfig"], facts["Config"]
    assert (facts["Path"], facts["Args"]) == ("/bin/sh", ["-c", "true"])
    expected = {
        "Memory": 64 << 20, "MemorySwap": 128 << 20, "MemoryReservation": 32 << 20,
        "NanoCpus": 500_000_000, "CpuShares": 512, "CpusetCpus": "0", "PidsLimit": 77,
        "Binds": [f"{tmp_path}:/data:ro"], "ShmSize": 2 << 20, "ReadonlyRootfs": True,
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}], "PidMode": "host",
        "Sysctls": {"net.ipv4.ip_forward": "1"}, "OomScoreAdj": 100, "GroupAdd": ["video"],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 4}, "Privileged": False,
        "NetworkMode": "none", "Dns": ["9.9.9.9"], "ExtraHosts": ["a:1.2.3.4"],
        "SecurityOpt": ["no-new-privileges"], "AutoRemove": False,
        "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/other",
                     "CgroupPermissions": "r"}],
    }  # fmt: skip
    assert {key: host[key] for key in expected} == expected
    assert [name.upper().replace("CAP_", "") for name in host["CapAdd"]] == ["NET_RAW"]
    assert host["Tmpfs"] == {"/t": "size=1048576"} and host["LogConfig"]["Config"]
    expected = {
        "Hostname": "host", "Domainname": "example.org", "User": "app", "WorkingDir": "/tmp",
        "Labels": {"x": "y"}, "StopSignal": "SIGINT", "StopTimeout": 3, "OpenStdin": True,
        "Tty": False, "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"],
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    assert "A=b" in config["Env"] and any(entry.startswith("PATH=") for entry in config["Env"])
    bind = next(mount for mount in facts["Mounts"] if mount["Type"] == "bind")
    assert bind == {
        "Type": "bind", "Source": str(tmp_path), "Destination": "/data", "Mode": "ro", "RW": False,
        "Propagation": "rprivate",
    }  # fmt: skip


def test_limits_that_were_not_asked_for_are_zero(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "true")
    host = engine.inspect("box")["HostConfig"]
    assert {host[key] for key in ("Memory", "MemorySwap", "NanoCpus", "CpuShares", "CpuQuota")} == {
        0
    }
    assert host["Binds"] is None and host["Devices"] == [] and host["CapAdd"] is None
    assert host["MaskedPaths"] and host["ReadonlyPaths"]


def test_sizes_come_only_when_asked_for(engine: Engine) -> None:
    engine.ok(
        "run", "--name", "box", "--rootfs", engine.rootfs, "sh", "-c", "head -c 5000 /dev/zero > /f"
    )
    assert "SizeRw" not in engine.inspect("box")
    facts = json.loads(engine.ok("inspect", "--size", "box"))[0]
    assert facts["SizeRw"] == 5000
    # Hard links count once: busybox is there three times.
    busybox = os.stat(os.path.join(engine.rootfs, "bin/busybox")).st_size
    assert busybox < facts["SizeRootFs"] < 2 * busybox


def test_templates_and_several_names(engine: Engine) -> None:
    ids = [
        engine.ok("create", "--name", n, "--rootfs", engine.rootfs, "true").strip() for n in "ab"
    ]
    assert (
        engine.ok("inspect", "-f", "{{.Name}} {{.State.Status}}", *"ab")
        == "/a created\n/b created\n"
    )
    assert [one["Id"] for one in json.loads(engine.ok("inspect", ids[0][:12], "b"))] == ids
    result = engine.run("inspect", "a", "nobody")
    assert result.returncode == 1 and "No such object: nobody" in result.stderr
    assert [one["Id"] for one in json.loads(result.stdout)] == ids[:1]
    assert engine.run("inspect", "nobody").stdout == "[]\n"


def test_a_container_with_an_unreadable_record_is_one_clear_error(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "true")
    container_id = engine.inspect("box")["Id"]
    record = Path(engine.root) / "containers" / container_id / "container.json"
    record.write_text('{"version": 1, "id"')
    text = engine.fails(1, "inspect", container_id)
    assert "broken" in text and "container.json" in text
    engine.ok("rm", "-f", container_id)
