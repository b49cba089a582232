"""Input that cannot work: one clear line, the right exit code, and nothing left behind."""

from __future__ import annotations

import os

import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.refusals import refused
from tests.support.runner import Engine

pytestmark = pytest.mark.root


def run(engine: Engine, *flags: str) -> list[str]:
    return ["run", "--rm", *flags, "--rootfs", engine.rootfs]


# The root filesystem


@pytest.mark.parametrize("verb", ["run", "create"])
def test_missing_rootfs(engine: Engine, verb: str) -> None:
    code = 125 if verb == "run" else 1
    said = refused(engine, code, verb, "--rootfs", "/no/such/directory", "true")
    assert "/no/such/directory" in said and "no such file or directory" in said


def test_rootfs_that_is_a_file(engine: Engine) -> None:
    said = refused(engine, 125, "run", "--rootfs", "/etc/passwd", "true")
    assert "/etc/passwd is not a directory" in said


def test_rootfs_that_is_a_dangling_link(engine: Engine) -> None:
    os.symlink("nowhere", f"{engine.base}/link")
    said = refused(engine, 125, "run", "--rootfs", f"{engine.base}/link", "true")
    assert "no such file or directory" in said


def test_empty_rootfs(engine: Engine) -> None:
    assert "--rootfs" in refused(engine, 125, "run", "--rootfs", "", "true")


def test_rootfs_without_any_program(engine: Engine) -> None:
    os.mkdir(f"{engine.base}/empty")
    said = refused(engine, 127, "run", "--rm", "--rootfs", f"{engine.base}/empty", "true")
    assert 'exec: "true": executable file not found in $PATH' in said


# The command


def test_no_command(engine: Engine) -> None:
    assert "no command specified" in refused(engine, 125, *run(engine))


def test_empty_word_as_command(engine: Engine) -> None:
    assert 'exec: ""' in refused(engine, 127, *run(engine), "")


@pytest.mark.parametrize("flags", [[], ["-d"], ["-t"]])
@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("no-such-command", 127, "executable file not found in $PATH"),
        ("/no/such/command", 127, "no such file or directory"),
        ("./command", 127, "no such file or directory"),
        ("/etc/passwd/x", 127, "not a directory"),
        ("/etc", 126, "is a directory"),
        ("/etc/notexec", 126, "permission denied"),
        ("/etc/data", 126, "exec format error"),
        ("/etc/lost-interpreter", 127, "no such file or directory"),
    ],
)
def test_command_that_cannot_run(
    engine: Engine, hopeless: str, flags: list[str], command: str, code: int, sentence: str
) -> None:
    said = refused(engine, code, "run", "--rm", *flags, "--rootfs", hopeless, command)
    assert f'exec: "{command}"' in said and sentence in said


@pytest.fixture
def hopeless(engine: Engine) -> str:
    fs = rootfs_builder.build(f"{engine.base}/fs")
    rootfs_builder.write(fs, "etc/data", "no program\n", 0o755)
    rootfs_builder.write(fs, "etc/lost-interpreter", "#!/no/such/interpreter\n", 0o755)
    return fs


def test_container_whose_command_cannot_run_stays_without_rm(engine: Engine) -> None:
    words = ["run", "--name", "n", "--rootfs", engine.rootfs, "no-such-command"]
    assert "not found" in engine.fails(127, *words)
    state = engine.inspect("n")["State"]
    assert (state["Status"], state["ExitCode"]) in (("created", 127), ("exited", 127))
    assert "not found" in state["Error"]
    assert "not found" in engine.fails(127, "start", "-a", "n")


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-command", 127), ("/etc", 126), ("/etc/notexec", 126)]
)
def test_exec_of_a_command_that_cannot_run(engine: Engine, command: str, code: int) -> None:
    engine.detach("--name", "n")
    for flags in ([], ["-d"], ["-t"]):
        assert f'exec: "{command}"' in engine.fails(code, "exec", *flags, "n", command)


# User, directory, volumes


def test_unknown_user(engine: Engine) -> None:
    said = refused(engine, 125, *run(engine, "-u", "who"), "true")
    assert said == "unable to find user who: no matching entries in passwd file"
    engine.detach("--name", "n")
    assert "unable to find user who" in engine.fails(126, "exec", "-u", "who", "n", "true")


def test_relative_working_directory(engine: Engine) -> None:
    said = refused(engine, 125, *run(engine, "-w", "usr/bin"), "true")
    assert "'usr/bin' is not absolute" in said


def test_working_directory_that_is_a_file(engine: Engine) -> None:
    said = refused(engine, 125, *run(engine, "-w", "/etc/passwd"), "true")
    assert "/etc/passwd" in said
    engine.detach("--name", "n")
    assert "/etc/passwd" in engine.fails(126, "exec", "-w", "/etc/passwd", "n", "true")


def test_missing_volume_source_over_a_file(engine: Engine) -> None:
    source = f"{engine.base}/missing"
    said = refused(engine, 125, *run(engine, "-v", f"{source}:/etc/passwd"), "true")
    assert source in said and "not a directory" in said
    assert not os.path.exists(source), "the directory that was made for it"


def test_file_over_a_directory(engine: Engine) -> None:
    said = refused(engine, 125, *run(engine, "-v", "/etc/hostname:/home"), "true")
    assert "/home" in said and "is a directory" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-v", "relative:/x"], "named volumes are not supported yet"),
        (["-v", "/only"], "HOST begins with"),
        (["-v", "/a:b"], "not absolute"),
        (["-v", "/a:/b:rw,ro"], "exclude each other"),
        (["-v", "/a:/b:fast"], "unknown option 'fast'"),
        (["-v", "/a:/"], "cannot be mounted over"),
        (["-v", "/etc:/b", "--tmpfs", "/b/"], "duplicate mount point: /b"),
        (["--mount", "type=bind,source=/no/such,target=/x"], "source path does not exist"),
        (["--mount", "type=bind,target=/x"], "source is required"),
        (["--mount", "type=cloud,target=/x"], "type=cloud"),
        (["--mount", "type=tmpfs"], "target is required"),
        (["--mount", "nonsense"], "KEY=VALUE"),
        (["--tmpfs", "relative"], "not absolute"),
        (["--tmpfs", "/t:size=-1"], "size"),
        (["--tmpfs", "/t:speed=9"], "speed"),
    ],
)
def test_mount_that_cannot_be(engine: Engine, flags: list[str], words: str) -> None:
    assert words in refused(engine, 125, *run(engine, *flags), "true")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env-file", "/no/such/file"], "no such file or directory"),
        (["--env-file", "/etc"], "is a directory"),
        (["-e", "=x"], "the name is empty"),
        (["-e", ""], "the name is empty"),
        (["--label", "=x"], "the name is empty"),
        (["--label-file", "/no/such/file"], "no such file or directory"),
        (["--annotation", "plain"], "KEY=VALUE"),
        (["--hostname", "a b"], "only letters"),
        (["--hostname", "x" * 65], "at most 64"),
        (["--name", "a b"], "[a-zA-Z0-9]"),
        (["--name", "../escape"], "[a-zA-Z0-9]"),
        (["--name", "x\n"], "[a-zA-Z0-9]"),
        (["--name", ""], "[a-zA-Z0-9]"),
        (["--stop-signal", "NOSUCH"], "expected a signal"),
        (["--stop-signal", "0"], "expected a signal"),
        (["--stop-signal", "99"], "expected a signal"),
        (["--ulimit", "nofile"], "NAME=SOFT"),
        (["--ulimit", "nothing=1"], "unknown limit nothing"),
        (["--ulimit", "nofile=2:1"], "above the hard limit"),
        (["--pid", "mine"], "accepted: private, host, container:NAME"),
        (["--ipc", "container:"], "accepted"),
        (["--uts", "container:x"], "accepted: private, host"),
        (["--add-host", "x"], "NAME:ADDRESS"),
        (["--add-host", "x:1.2.3"], "IPv4 or IPv6"),
        (["--dns", "localhost"], "IPv4 or IPv6"),
        (["--log-driver", "syslog"], "json-file, none"),
        (["--log-opt", "max-size=much"], "max-size"),
        (["--detach-keys", "ctrl-"], "ctrl-X"),
        (["--restart", "sometimes"], "accepted: no, on-failure"),
        (["--rm=perhaps"], "true or false"),
    ],
)
def test_value_that_cannot_be(engine: Engine, flags: list[str], words: str) -> None:
    said = refused(engine, 125, "run", *flags, "--rootfs", engine.rootfs, "true")
    assert words in said
    flag = flags[0].partition("=")[0]
    assert said.startswith("invalid argument") and flag in said


# Limits


@pytest.mark.parametrize(
    ("flag", "value", "accepted"),
    [
        ("--memory", "-1x", "from 6m"),
        ("--memory", "lots", "from 6m"),
        ("--memory", "5m", "from 6m"),
        ("--memory", "1e9", "from 6m"),
        ("--memory", "99999999999999999999g", "accepted"),
        ("-m", "", "from 6m"),
        ("--memory-swap", "some", "-1 for no limit"),
        ("--memory-reservation", "1m", "from 6m"),
        ("--cpus", "0", "from 0.01 to"),
        ("--cpus", "two", "from 0.01 to"),
        ("--cpus", "-1", "from 0.01 to"),
        ("--cpus", "100000", f"from 0.01 to {os.cpu_count()}"),
        ("--cpus", "nan", "from 0.01 to"),
        ("--cpu-shares", "1", "from 2 to 262144"),
        ("--cpu-shares", "many", "from 2 to 262144"),
        ("--cpu-period", "5", "from 1000 to 1000000"),
        ("--cpu-quota", "x", "from 1000"),
        ("--cpuset-cpus", "a", "0-2,7"),
        ("--cpuset-cpus", "3-1", "runs backwards"),
        ("--cpuset-mems", "-1", "0-2,7"),
        ("--pids-limit", "few", "from 1 to"),
        ("--pids-limit", "-2", "from 1 to"),
        ("--pids-limit", "1.5", "from 1 to"),
        ("--oom-score-adj", "2000", "from -1000 to 1000"),
        ("--oom-score-adj", "x", "from -1000 to 1000"),
        ("--stop-timeout", "soon", "whole seconds"),
        ("--shm-size", "0", "from 1 byte"),
        ("--shm-size", "big", "a size such as"),
    ],
)
def test_limit_that_is_no_number_or_out_of_range(
    engine: Engine, flag: str, value: str, accepted: str
) -> None:
    said = refused(engine, 125, "run", f"{flag}={value}", "--rootfs", engine.rootfs, "true")
    assert said.startswith(f'invalid argument "{value}" for "') and accepted in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--memory-swap", "64m"],
        ["--memory", "64m", "--memory-swap", "32m"],
        ["--memory", "64m", "--memory-reservation", "128m"],
        ["--cpus", "1", "--cpu-quota", "5000"],
        ["--rm", "--restart", "always"],
        ["--log-driver", "none", "--log-opt", "max-file=2"],
        ["--uts", "host", "--hostname", "x"],
    ],
)
def test_flags_that_exclude_each_other(engine: Engine, flags: list[str]) -> None:
    said = refused(engine, 125, "run", *flags, "--rootfs", engine.rootfs, "true")
    assert said.count("--") >= 2


# Network


@pytest.mark.parametrize(
    "flags", [["-p", "80:80"], ["--publish=8080:80"], ["-p", "80", "--network", "none"]]
)
def test_port_without_a_bridge(engine: Engine, flags: list[str]) -> None:
    said = refused(engine, 125, *run(engine, *flags), "true")
    assert "-p/--publish needs a bridge network" in said


@pytest.mark.parametrize("mode", ["bridge", "container:x", "mine", ""])
def test_network_that_is_not_there(engine: Engine, mode: str) -> None:
    said = refused(engine, 125, *run(engine, f"--network={mode}"), "true")
    assert "accepted: none, host" in said
