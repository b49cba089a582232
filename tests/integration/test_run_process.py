"""Flags of `run` about the process: environment, directory, entrypoint, limits, stopping."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.inside import status_of
from tests.support.runner import Engine, wait_until

pytestmark = pytest.mark.root

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PRINT_ENVIRONMENT = ["cat", "/proc/self/environ"]


def environment(engine: Engine, *flags: str, **more: object) -> list[str]:
    """The variables that the command is started with, in order."""
    words = ["run", "--rm", *flags, "--rootfs", engine.rootfs, *PRINT_ENVIRONMENT]
    shown = engine.ok(*words, **more)
    assert shown.endswith("\0")
    return shown[:-1].split("\0")


# -e, --env-file


def test_environment_of_a_container_is_this_and_no_more(engine: Engine) -> None:
    assert environment(engine) == [PATH, "HOSTNAME=minicontainer", "HOME=/root"]


def test_env_sets_a_variable(engine: Engine) -> None:
    found = environment(engine, "-e", "A=b=c d", "--env", "EMPTY=", "--env=Z=\u00fc\n2")
    assert found[2:] == ["A=b=c d", "EMPTY=", "Z=\u00fc\n2", "HOME=/root"]


def test_env_without_a_value_hands_on_the_callers(engine: Engine) -> None:
    found = environment(engine, "-e", "MINE", "-e", "NOBODYS", env={"MINE": "from the caller"})
    assert "MINE=from the caller" in found
    assert not [entry for entry in found if entry.startswith("NOBODYS")]


def test_env_without_a_value_removes_what_the_caller_lacks(engine: Engine) -> None:
    assert environment(engine, "-e", "HOSTNAME") == [PATH, "HOME=/root"]


def test_later_variable_takes_the_place_of_an_earlier_one(engine: Engine) -> None:
    found = environment(engine, "-e", "A=1", "-e", "B=2", "-e", "A=3", "-e", "PATH=/bin")
    assert found == ["PATH=/bin", "HOSTNAME=minicontainer", "A=3", "B=2", "HOME=/root"]


def test_env_file_has_lines_and_comments_and_no_quotes(engine: Engine) -> None:
    path = f"{engine.base}/env"
    with open(path, "w", encoding="utf-8") as file:
        file.write('# no\nA=1\n\nQ="kept $A"\nMINE\n  B=2\nS=a  b \n')
    found = environment(engine, "--env-file", path, env={"MINE": "x"})
    assert found[2:-1] == ["A=1", 'Q="kept $A"', "MINE=x", "B=2", "S=a  b "]


def test_env_wins_over_env_file_wherever_it_stands(engine: Engine) -> None:
    path = f"{engine.base}/env"
    with open(path, "w", encoding="utf-8") as file:
        file.write("A=file\nB=file\n")
    found = environment(engine, "-e", "A=flag", "--env-file", path)
    assert found[2:-1] == ["A=flag", "B=file"]


def test_variable_that_is_not_utf8_arrives_unchanged(engine: Engine) -> None:
    found = environment(engine, "-e", "A=\udcff\udc80")
    assert found[2] == "A=\udcff\udc80"


def test_home_can_be_set_and_an_empty_one_is_filled(engine: Engine) -> None:
    assert "HOME=/elsewhere" in environment(engine, "-e", "HOME=/elsewhere")
    assert environment(engine, "-e", "HOME=")[-1] == "HOME=/root"


def test_term_is_set_with_a_terminal_only(engine: Engine) -> None:
    words = ["run", "--rm", "-t", "--rootfs", engine.rootfs, *PRINT_ENVIRONMENT]
    assert "TERM=xterm" in engine.ok(*words).rstrip("\0\r\n").split("\0")


def test_nothing_of_the_callers_environment_arrives(engine: Engine) -> None:
    names = (
        "LD_LIBRARY_PATH", "LANG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "PYTHONSTARTUP",
        "PYTHONHASHSEED_", "XDG_RUNTIME_DIR", "TERM", "SUDO_USER", "http_proxy", "USER",
    )  # fmt: skip
    strange = dict.fromkeys(names, "from-the-caller")
    assert environment(engine, env=strange) == [PATH, "HOSTNAME=minicontainer", "HOME=/root"]


def test_exec_sees_the_containers_environment_and_nothing_else(engine: Engine) -> None:
    engine.detach("--name", "e", "-e", "A=1")
    shown = engine.ok("exec", "-e", "B=2", "e", *PRINT_ENVIRONMENT, env={"STRANGE": "x"})
    assert shown.rstrip("\0").split("\0") == [
        PATH,
        "HOSTNAME=minicontainer",
        "A=1",
        "B=2",
        "HOME=/root",
    ]


# -w


def test_working_directory_is_the_root_by_default(engine: Engine) -> None:
    assert engine.sh("pwd") == "/\n"


@pytest.mark.parametrize("flag", ["-w", "--workdir"])
def test_working_directory_is_entered(engine: Engine, flag: str) -> None:
    assert engine.sh("pwd", flag, "/home/app/../app") == "/home/app\n"


def test_working_directory_is_made_with_its_parents(engine: Engine) -> None:
    script = "pwd; stat -c '%a %u %g' /new /new/deep ."
    shown = engine.sh(script, "-w", "/new/deep/er", "-u", "app")
    assert shown == "/new/deep/er\n" + "755 0 0\n" * 3


def test_working_directory_can_lie_in_a_volume(engine: Engine) -> None:
    source = f"{engine.base}/source"
    os.mkdir(source)
    assert engine.sh("pwd; touch here", "-v", f"{source}:/data", "-w", "/data/sub") == "/data/sub\n"
    assert os.listdir(f"{source}/sub") == ["here"]


# --entrypoint


def test_entrypoint_stands_before_the_command(engine: Engine) -> None:
    words = ["run", "--rm", "--entrypoint", "/bin/echo", "--rootfs", engine.rootfs, "a", "b"]
    assert engine.ok(*words) == "a b\n"


def test_entrypoint_alone_is_enough(engine: Engine) -> None:
    words = ["run", "--rm", "--entrypoint", "/bin/pwd", "--rootfs", engine.rootfs]
    assert engine.ok(*words) == "/\n"


def test_empty_entrypoint_is_none(engine: Engine) -> None:
    words = ["run", "--rm", "--entrypoint", "", "--rootfs", engine.rootfs, "echo", "x"]
    assert engine.ok(*words) == "x\n"


# How the command is found


def test_command_is_found_in_the_containers_path(engine: Engine) -> None:
    fs = rootfs_builder.build(f"{engine.base}/fs")
    os.mkdir(f"{fs}/opt")
    rootfs_builder.write(fs, "opt/mine", "#!/bin/sh\necho found $0 $1\n", 0o755)
    words = ["run", "--rm", "-e", "PATH=/nowhere:/opt:/bin", "--rootfs", fs, "mine", "arg"]
    assert engine.ok(*words) == "found /opt/mine arg\n"


def test_argument_zero_is_the_word_that_was_given(engine: Engine) -> None:
    script = ["cat", "/proc/self/cmdline"]
    assert engine.ok("run", "--rm", "--rootfs", engine.rootfs, *script) == (
        "cat\0/proc/self/cmdline\0"
    )


# --ulimit


def test_ulimit_sets_soft_and_hard(engine: Engine) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -Su; ulimit -Hu; ulimit -Hc"
    flags = ["--ulimit", "nofile=64:128", "--ulimit", "nproc=100", "--ulimit", "core=0"]
    assert engine.sh(script, *flags).split() == ["64", "128", "100", "100", "0"]


def test_ulimit_holds_for_exec_too(engine: Engine) -> None:
    engine.detach("--name", "u", "--ulimit", "nofile=64:128")
    assert engine.ok("exec", "u", "sh", "-c", "ulimit -n") == "64\n"


def test_limits_are_inherited_without_ulimit(engine: Engine) -> None:
    command = engine.argv("run", "--rm", "--rootfs", engine.rootfs, "sh", "-c", "ulimit -n")
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 333; exec "$@"', "sh", *command],
        env=engine.env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "333\n"


def test_ulimit_above_our_own_without_the_capability_is_an_error(engine: Engine) -> None:
    words = ["run", "--rm", "--ulimit", "nofile=999:999", "--rootfs", engine.rootfs, "true"]
    limited = 'ulimit -n 512; exec setpriv --bounding-set -sys_resource "$@"'
    done = subprocess.run(
        ["sh", "-c", limited, "sh", *engine.argv(*words)],
        env=engine.env,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert done.stderr.startswith("Error: limit RLIMIT_NOFILE to 999:999: ")
    assert "CAP_SYS_RESOURCE" in done.stderr
    assert engine.leftovers() == []


# --oom-score-adj


def test_oom_score_is_zero_by_default(engine: Engine) -> None:
    command = engine.argv("run", "--rm", "--rootfs", engine.rootfs, "cat", "/proc/1/oom_score_adj")
    raised = "import os, sys; open('/proc/self/oom_score_adj', 'w').write('500'); "
    raised += "os.execvp(sys.argv[1], sys.argv[1:])"
    shown = subprocess.run(
        [sys.executable, "-c", raised, *command],
        env=engine.env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert shown.stdout == "0\n"


@pytest.mark.parametrize("score", ["1000", "321"])
def test_oom_score_is_set(engine: Engine, score: str) -> None:
    script = "cat /proc/1/oom_score_adj /proc/self/oom_score_adj"
    assert engine.sh(script, "--oom-score-adj", score) == f"{score}\n{score}\n"


# --stop-signal, --stop-timeout

TRAP = "trap 'echo USR1; exit 5' USR1; trap 'echo TERM; exit 6' TERM; echo up; "
TRAP += "while :; do sleep 0.05; done"


@pytest.mark.parametrize(
    ("flags", "said", "code"),
    [
        ([], "TERM", 6),
        (["--stop-signal", "USR1"], "USR1", 5),
        (["--stop-signal=SIGUSR1"], "USR1", 5),
        (["--stop-signal", "10"], "USR1", 5),
    ],
)
def test_stop_sends_the_stop_signal(engine: Engine, flags: list[str], said: str, code: int) -> None:
    engine.detach("--name", "s", *flags, command=["sh", "-c", TRAP])
    wait_until(lambda: engine.ok("logs", "s"), "its trap")
    engine.ok("stop", "s")
    assert engine.ok("logs", "s") == f"up\n{said}\n"
    assert engine.inspect("s")["State"]["ExitCode"] == code


@pytest.mark.lifecycle
def test_stop_kills_after_the_stop_timeout(engine: Engine) -> None:
    ignore = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    engine.detach("--name", "s", "--stop-timeout", "1", command=["sh", "-c", ignore])
    wait_until(lambda: engine.ok("logs", "s"), "its trap")
    began = time.monotonic()
    engine.ok("stop", "s")
    assert 0.9 < time.monotonic() - began < 6
    assert engine.inspect("s")["State"]["ExitCode"] == 137


# What a process starts with besides


def test_process_leads_its_own_session_and_group(engine: Engine) -> None:
    engine.detach("--name", "s")
    found = status_of(engine.pid("s"))
    assert found["NSsid"].split()[-1] == found["NSpgid"].split()[-1] == "1"
