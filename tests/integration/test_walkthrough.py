"""The walkthrough of the original project, as a reader would type it."""

from __future__ import annotations

import re

import pytest

from tests.support.runner import Engine

pytestmark = [pytest.mark.root, pytest.mark.lifecycle]

PROMPT = r"[#$] "


def test_hello(engine: Engine) -> None:
    words = ["run", "--rm", "--rootfs", engine.rootfs, "/bin/echo", "Hello from container!"]
    assert engine.ok(*words) == "Hello from container!\n"


def test_a_shell_on_a_terminal(engine: Engine) -> None:
    limits = ["--memory", "256m", "--cpus", "0.5", "--pids-limit", "50"]
    shell = engine.pty("run", "-it", "--rm", *limits, "--rootfs", engine.rootfs, "/bin/sh")
    shell.expect(PROMPT, 30)
    shell.line("hostname")
    shell.expect(r"^minicontainer\r$")
    shell.expect(PROMPT)

    shell.line("ps aux; echo end")
    shell.expect(r"^end\r$")
    listed = shell.output[shell.output.rindex("PID") :]
    processes = [line.split(None, 3) for line in listed.splitlines()[1:] if line[:6].strip()]
    numbers = {row[0]: row[-1] for row in processes if row[0].isdigit()}
    assert numbers.pop("1") == "/bin/sh"
    assert len(numbers) == 1, "ps itself, and nothing of the host"

    shell.line("ls /dev; echo end")
    shell.expect(r"^end\r$")
    nodes = set(shell.output[shell.output.rindex("ls /dev") :].split())
    assert {"null", "random", "tty", "urandom", "zero", "console", "full"} <= nodes

    shell.line("exit 7")
    assert shell.wait() == 7
    assert shell.is_restored()


def test_a_minute_of_sleep_is_listed_stopped_and_removed(engine: Engine) -> None:
    answer = engine.ok("run", "-d", "--rootfs", engine.rootfs, "/bin/sleep", "60")
    assert re.fullmatch(r"[0-9a-f]{64}\n", answer)
    short = answer[:12]

    heading, row = engine.ok("ps").splitlines()
    assert heading.split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES".split()
    assert row.startswith(short)
    assert '"/bin/sleep 60"' in row and re.search(r"\bUp (Less than a|\d+) second", row)

    assert engine.ok("stop", "-t", "1", short) == f"{short}\n"
    assert engine.ok("ps").count("\n") == 1
    assert re.search(r"Exited \(137\) .* ago", engine.ok("ps", "-a"))

    assert engine.ok("rm", short) == f"{short}\n"
    assert engine.ok("ps", "-a").count("\n") == 1
    assert engine.leftovers() == []


def test_version_and_help(engine: Engine) -> None:
    assert re.match(r"minicontainer version \d+\.\d+", engine.ok("version"))
    text = engine.ok("help")
    assert "Usage:" in text and "Commands:" in text
    for verb in ("run", "ps", "stop", "rm", "logs", "exec", "inspect", "prune", "version"):
        assert re.search(rf"^\s+{verb}\s", text, re.MULTILINE), verb
    assert engine.ok() == text
