"""cli/run_options: from the words of `run` to the one options dict."""

from __future__ import annotations

import json

import pytest

from minicontainer.cli import options, run, run_options
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

RUN, CREATE = run.COMMANDS
# What engine/bundle and the others read, with what they find when nothing was asked.
PLAIN: dict[str, Any] = {
    "add_host": [],
    "annotation": {},
    "attach": [],
    "cap_add": [],
    "cap_drop": [],
    "cgroup_parent": None,
    "cgroupns": None,
    "cidfile": None,
    "command": ["true"],
    "cpu_period": None,
    "cpu_quota": None,
    "cpu_shares": None,
    "cpus": None,
    "cpuset_cpus": None,
    "cpuset_mems": None,
    "detach": False,
    "detach_keys": None,
    "device": [],
    "device_cgroup_rule": [],
    "dns": [],
    "dns_option": [],
    "dns_search": [],
    "domainname": None,
    "entrypoint": None,
    "env": [],
    "group_add": [],
    "hostname": None,
    "image": None,
    "init": False,
    "interactive": False,
    "ipc": None,
    "label": {},
    "log_driver": "json-file",
    "log_opt": {},
    "memory": None,
    "memory_reservation": None,
    "memory_swap": None,
    "mounts": [],
    "name": None,
    "network": "none",
    "oom_score_adj": None,
    "pid": None,
    "pidfile": None,
    "pids_limit": None,
    "platform": None,
    "privileged": False,
    "publish": [],
    "pull": "missing",
    "quiet": False,
    "read_only": False,
    "restart": {"name": "no", "maximum": 0},
    "rm": False,
    "rootfs": "/r",
    "security_opt": [],
    "shm_size": None,
    "sig_proxy": True,
    "stop_signal": None,
    "stop_timeout": None,
    "sysctl": {},
    "tty": False,
    "ulimit": [],
    "user": None,
    "userns": None,
    "uts": None,
    "workdir": None,
}


def collect(*words: str, command: options.Command = RUN) -> dict[str, Any]:
    return run_options.collect(*options.parse(command, words))


@pytest.mark.parametrize("command", [RUN, CREATE], ids=["run", "create"])
def test_nothing_asked_gives_every_key_its_default(command: options.Command) -> None:
    found = collect("--rootfs", "/r", "true", command=command)
    assert found == PLAIN
    assert json.loads(json.dumps(found)) == found


def test_defaults_are_nobodys_to_change() -> None:
    collect("--rootfs", "/r", "true")["restart"]["name"] = "always"
    collect("--rootfs", "/r", "true")["mounts"].append(1)
    assert collect("--rootfs", "/r", "true") == PLAIN


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--name", "web"], "name", "web"),
        (["-h", "box"], "hostname", "box"),
        (["-dit"], "tty", True),
        (["--sig-proxy=false"], "sig_proxy", False),
        (["-e", "A=1", "-e", "A=2"], "env", ["A=1", "A=2"]),
        (["-l", "a=1", "-l", "b", "-l", "a=2"], "label", {"a": "2", "b": ""}),
        (["--annotation", "a=1"], "annotation", {"a": "1"}),
        (["--sysctl", "net.ipv4.ip_forward=1"], "sysctl", {"net.ipv4.ip_forward": "1"}),
        (["--log-opt", "max-size=1k"], "log_opt", {"max-size": "1000"}),
        (["--entrypoint", "/x"], "entrypoint", ["/x"]),
        (["--entrypoint", ""], "entrypoint", []),
        (["--cap-add", "net_raw,CAP_CHOWN", "--cap-add=ALL"], "cap_add",
         ["NET_RAW", "CHOWN", "ALL"]),
        (["--ulimit", "core=1", "--ulimit", "core=2"], "ulimit",
         [{"name": "core", "soft": 2, "hard": 2}]),
        (["-m", "64m"], "memory", 64 << 20),
        (["-m64m", "--memory-swap=-1"], "memory_swap", -1),
        (["--cpus", "0.5"], "cpus", 500_000_000),
        (["-c", "512"], "cpu_shares", 512),
        (["--pids-limit", "0"], "pids_limit", 0),
        (["--restart", "on-failure:2"], "restart", {"name": "on-failure", "maximum": 2}),
        (["--net", "host"], "network", "host"),
        (["--pid", "container:x"], "pid", "container:x"),
        (["--cgroupns", "private"], "cgroupns", None),
        (["-u", "1:2"], "user", "1:2"),
        (["--detach-keys", ""], "detach_keys", ""),
        (["--stop-timeout=-1"], "stop_timeout", -1),
        (["--shm-size", "1m"], "shm_size", 1 << 20),
        (["--cidfile", "/x/../y"], "cidfile", "/y"),
    ],
)  # fmt: skip
def test_flags_reach_their_keys(words: list[str], key: str, value: object) -> None:
    assert collect(*words, "--rootfs", "/r", "true")[key] == value


def test_mounts_of_all_flags_keep_their_order() -> None:
    found = collect(
        "-v", "/a:/1", "--tmpfs", "/2", "--mount", "type=bind,src=/c,dst=/3", "-v", "/d:/4",
        "--rootfs", "/r", "true",
    )  # fmt: skip
    assert [mount["destination"] for mount in found["mounts"]] == ["/1", "/2", "/3", "/4"]


def test_everything_after_the_command_is_the_commands() -> None:
    found = collect("--rootfs=/r", "sh", "-c", "--rm", "-m", "x", "--")
    assert found["command"] == ["sh", "-c", "--rm", "-m", "x", "--"]
    assert not found["rm"]


def test_env_files_come_before_single_variables(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("A=1\nB=1\n")
    (tmp_path / "labels").write_text("x=1\ny\n")
    found = collect(
        "-e", "A=2", "--env-file", str(tmp_path / "one"), "-l", "x=2",
        "--label-file", str(tmp_path / "labels"), "--rootfs", "/r", "true",
    )  # fmt: skip
    assert found["env"] == ["A=1", "B=1", "A=2"]
    assert found["label"] == {"x": "2", "y": ""}
    assert "env_file" not in found
    assert "label_file" not in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rootfs", "/r"], "no command specified"),
        (["--rootfs", "/r", "--entrypoint", ""], "no command specified"),
        (["--rm", "--restart", "always"], "--rm and --restart exclude each other"),
        (["--memory-swap", "1g"], "--memory-swap needs --memory"),
        (["-m", "1g", "--memory-swap", "512m"], "--memory-swap is below --memory"),
        (["-m", "1g", "--memory-reservation", "2g"], "above --memory"),
        (["--cpus", "1", "--cpu-quota", "1000"], "exclude each other"),
        (["--uts", "host", "-h", "x"], "exclude each other"),
        (["--log-driver", "none", "--log-opt", "max-file=2"], "--log-driver none exclude"),
        (["-v", "/a:/x", "--tmpfs", "/x"], "duplicate mount point: /x"),
        (["-p", "80:80"], "which is not supported yet; use --network host"),
        (["--publish=80:80"], "-p/--publish needs a bridge network"),
        (["--health-cmd", "x"], "--health-cmd: not supported yet"),
        (["--gpus=all"], "--gpus: not supported yet"),
        (["--volumes-from", "x"], "--volumes-from: not supported yet"),
        (["--init"], "--init: not supported yet"),
        (["--userns=host"], "--userns: not supported yet"),
        (["-P"], "-P: not supported yet"),
        (["--network", "bridge"], "not supported yet; accepted: none, host"),
        (["-w", "work"], "not absolute"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(words: list[str], message: str) -> None:
    rootfs = [] if words[0] == "--rootfs" else ["--rootfs", "/r", "true"]
    with pytest.raises(UsageError) as caught:
        collect(*words, *rootfs)
    assert message in str(caught.value)
    assert caught.value.exit_code == 125


def test_neither_rootfs_nor_image_is_a_wrong_number_of_arguments() -> None:
    with pytest.raises(options.WrongArguments):
        collect("--rm")


def test_environment_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("".join(f"A{n}={'x' * 60000}\n" for n in range(16)))
    words = ["--env-file", str(tmp_path / "env")] * 2
    with pytest.raises(UsageError, match="more than 1048576 bytes"):
        collect(*words, "--rootfs", "/r", "true")


def test_no_flag_is_both_known_and_missing() -> None:
    names = {name for option in run_options.TABLE for name in option.names}
    assert not names & set(run_options.LATER)
    assert len(names) == sum(len(option.names) for option in run_options.TABLE)
