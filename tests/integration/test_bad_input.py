"""Input that cannot work: one clear line, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import re

import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.runner import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.root


def refused(engine: Engine, code: int, *words: str, **more: Any) -> str:
    """What stands after `Error: `; no other line but a hint or the usage, and nothing is left."""
    __tracebackhide__ = True
    said = engine.fails(code, *words, **more)
    for line in said.splitlines():
        assert re.match("(Error|Hint|Usage|Warning): .", line), said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said)
    sentence = re.search("^Error: (.+)$", said, re.MULTILINE)
    assert sentence is not None
    assert engine.containers() == []
    assert engine.leftovers() == []
    return sentence.group(1)


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


def test_no_rootfs(engine: Engine) -> None:
    assert "not supported yet" in refused(engine, 125, "run", "alpine", "true")


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


# Flags and verbs


@pytest.mark.parametrize(
    ("word", "near"),
    [("--memroy", "--memory"), ("--volumes", "--volume"), ("--readonly", "--read-only")],
)
def test_unknown_flag_names_the_nearest(engine: Engine, word: str, near: str) -> None:
    said = engine.fails(125, "run", word, "--rootfs", engine.rootfs, "true")
    assert f"unknown flag: {word}" in said and near in said.partition("Hint:")[2]


def test_unknown_verb(engine: Engine) -> None:
    assert "unknown command: rnu" in refused(engine, 1, "rnu", "true")


def test_flag_without_its_value(engine: Engine) -> None:
    assert "flag needs an argument: --name" in refused(engine, 125, "run", "--name")


def test_flag_that_is_not_built_yet_is_never_ignored(engine: Engine) -> None:
    for flag in ("--init", "--gpus", "--health-cmd", "--volumes-from"):
        said = refused(engine, 125, *run(engine, flag), "true")
        assert said == f"{flag}: not supported yet"


def test_terminal_without_a_terminal(engine: Engine) -> None:
    said = refused(engine, 1, *run(engine, "-it"), "true")
    assert said == "the input device is not a TTY"


# Names and ids


def test_duplicate_name(engine: Engine) -> None:
    container_id = engine.detach("--name", "taken")
    for verb, code in (("run", 125), ("create", 1)):
        said = engine.fails(code, verb, "--name", "taken", "--rootfs", engine.rootfs, "true")
        sentence = f'The container name "/taken" is already in use by container "{container_id}"'
        assert f"Error: Conflict. {sentence}\n" in said
    assert engine.containers() == [container_id]
    assert os.listdir(f"{engine.root}/tmp") == []


VERBS = [
    ["start"],
    ["stop"],
    ["kill"],
    ["wait"],
    ["restart"],
    ["pause"],
    ["unpause"],
    ["rm"],
    ["logs"],
    ["inspect"],
    ["top"],
    ["port"],
    ["diff"],
    ["attach"],
    ["export"],
    ["rename", "X", "new"],
    ["exec", "X", "true"],
    ["update", "--cpus", "1", "X"],
]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: str(words[0]))
@pytest.mark.parametrize("name", ["nobody", "0123456789ab", "..", "a/b"])
def test_unknown_container(engine: Engine, words: list[str], name: str) -> None:
    words = [word.replace("X", name) for word in words]
    if len(words) == 1:
        words.append(name)
    said = refused(engine, 1, *words)
    kind = "object" if words[0] == "inspect" else "container"
    assert f"No such {kind}: {name}" in said


def test_unknown_container_in_cp(engine: Engine) -> None:
    for words in (["nobody:/etc/passwd", "-"], ["/etc/passwd", "nobody:/tmp"]):
        assert "No such container: nobody" in refused(engine, 1, "cp", *words)


def test_ambiguous_prefix(engine: Engine) -> None:
    for _ in range(17):  # sixteen digits: two of them begin with the same one
        engine.ok("create", "--rootfs", engine.rootfs, "true")
    ids = engine.containers()
    digits = [container_id[0] for container_id in ids]
    double = next(digit for digit in digits if digits.count(digit) > 1)
    for words in (["rm"], ["start"], ["inspect"]):
        said = engine.fails(1, *words, double)
        assert f"{double} is the beginning of several container ids" in said
        assert next(one for one in ids if one[0] == double)[:12] in said.partition("Hint:")[2]
    assert engine.containers() == ids


def test_exec_into_a_stopped_container(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "true")
    assert "is not running" in engine.fails(1, "exec", "c", "true")


def test_error_cannot_steer_the_terminal(engine: Engine) -> None:
    """What the user typed comes back in the sentence, its control characters escaped."""
    terminal = engine.pty("run", "--rootfs", engine.rootfs, "x\x1b]0;owned\x07\r\x9b31m")
    assert terminal.wait() == 127
    assert "executable file not found" in terminal.output
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", terminal.output.strip())
    assert engine.ok("rm", "--all").count("\n") == 1
