"""cli: from a command line to an exit code, in processes of its own; and where the state lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from minicontainer import cli, errors
from minicontainer.cli import containers, options, output, report, roots
from minicontainer.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START = f"import sys; sys.path.insert(0, {TOP!r}); from minicontainer import cli; cli.main()"


def minicontainer(
    *words: str | bytes, env: dict[str, str] | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run the program on state directories that do not exist, and must not come to be."""
    settings.setdefault("stdin", subprocess.DEVNULL)
    settings.setdefault("stdout", subprocess.PIPE)
    settings.setdefault("stderr", subprocess.PIPE)
    environment = {"PATH": os.defpath, "MINICONTAINER_ROOT": "/nowhere/root"}
    environment.update({"MINICONTAINER_RUNROOT": "/nowhere/run", **(env or {})})
    return subprocess.run(
        [sys.executable, "-I", "-c", START, *words],
        env=environment,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=30,
        **settings,
    )


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_overview_goes_to_standard_output(words: list[str]) -> None:
    done = minicontainer(*words)
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert "Commands:" in done.stdout
    for verb in cli.VERBS:
        assert f"\n  {verb} " in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_has_help(verb: str) -> None:
    done = minicontainer(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage:  minicontainer {verb}")
    assert not done.stderr
    command, _ = cli.find([verb])
    for option in command.options:
        assert option.flags in done.stdout
        assert option.help


def test_help_of_a_verb_is_the_verbs_help() -> None:
    assert minicontainer("help", "run").stdout == minicontainer("run", "--help").stdout
    nested = minicontainer("help", "container", "ls").stdout
    assert nested == minicontainer("ps", "--help").stdout


@pytest.mark.parametrize(
    ("words", "code", "lines"),
    [
        (["foo"], 1, ["Error: unknown command: foo"]),
        (["pss"], 1, ["Error: unknown command: pss", "Hint: did you mean ps?"]),
        (["container", "lss"], 1, ["Error: unknown command: container lss"]),
        (["image", "start"], 1, ["Error: unknown command: image start"]),
        (["container"], 1, ["Error: unknown command: container"]),
        (["oci", "state", "x"], 1, ["Error: oci: not supported yet"]),
        (["push", "alpine"], 1, ["Error: push: not supported yet"]),
        (["image", "push", "x"], 1, ["Error: push: not supported yet"]),
        (["--bogus", "ps"], 125, ["Error: unknown flag: --bogus"]),
        (["--config", "/x", "ps"], 125, ["Error: --config: not supported yet"]),
        (["--root=", "ps"], 125, ['Error: invalid argument "" for "--root" flag']),
        (["ps", "--bogus"], 125, ["Error: unknown flag: --bogus", "Hint: ",
                                  "Usage: minicontainer ps [OPTIONS]"]),
        (["run", "--memory", "-1x", "--rootfs", "/", "true"], 125,
         ['Error: invalid argument "-1x" for "-m, --memory" flag: expected a size']),
        (["run", "--cpus", "0", "--rootfs", "/", "true"], 125,
         ['Error: invalid argument "0" for "--cpus" flag: out of range; accepted from 0.01 to']),
        (["run", "--memroy", "1g"], 125, ["Error: unknown flag: --memroy",
                                          "Hint: did you mean --memory?"]),
        (["run", "-p", "80:80", "--rootfs", "/", "true"], 125,
         ["Error: -p/--publish needs a bridge network, which is not supported yet"]),
        (
            ["run", "--pull", "sometimes", "alpine"],
            125,
            [
                'Error: invalid argument "sometimes" for "--pull" flag: '
                "accepted: missing, always, never"
            ],
        ),
        (["run", "--rootfs", "/"], 125, ["Error: no command specified"]),
        (["run"], 1, ["Error: an image, or --rootfs DIR and a command, is required"]),
        (["run", "-it", "--rootfs", "/", "sh"], 1, ["Error: the input device is not a TTY"]),
        (["exec", "-it", "x", "sh"], 1, ["Error: the input device is not a TTY"]),
        (["stop"], 1, ['Error: "minicontainer stop" requires at least 1 argument']),
        (["rename", "a"], 1, ['Error: "minicontainer rename" requires exactly 2 arguments']),
        (["ps", "x"], 1, ['Error: "minicontainer ps" requires no arguments']),
        (["rm"], 1, ['Error: "minicontainer rm" requires']),
        (["start"], 1, ["Error: name containers, or give --all"]),
        (["start", "-a", "x", "y"], 1, ["Error: you cannot start and attach multiple"]),
        (["kill", "-s", "FOO", "x"], 125, ['Error: invalid argument "FOO" for "-s, --signal"']),
        (["stop", "-t", "soon", "x"], 125, ['Error: invalid argument "soon" for "-t, --timeout']),
        (["logs", "--tail", "x", "y"], 125, ['Error: invalid argument "x" for "-n, --tail" flag']),
        (["logs", "--since", "x", "y"], 125, ['Error: invalid argument "x" for "--since" flag']),
        (["update", "x"], 125, ["Error: nothing to change"]),
        (["cp", "a", "b"], 125, ["Error: one of the two must be CONTAINER:PATH"]),
        (["cp", "a:/x", "b:/y"], 125, ["Error: copying between containers"]),
        (["ps", "--filter", "x=1"], 125, ['Error: invalid argument "x=1" for "-f, --filter"']),
        (["ps", "--filter", "status=x"], 125, ["Error: invalid argument"]),
        (["ps", "--filter", "name=("], 125, ["Error: invalid argument"]),
        (["prune", "--filter", "x=1"], 125, ["Error: invalid argument"]),
        (["inspect", "-f", "{{", "x"], 125, ["Error: template: unclosed action"]),
        (["version", "--format", "{{.Nope}}"], 1, ["Error: template: no field Nope"]),
        (["prune", "-a"], 1, ["WARNING! ", "Are you sure you want to continue? [y/N] "]),
    ],
)  # fmt: skip
def test_mistakes_give_one_line_and_their_code(
    words: list[str], code: int, lines: list[str]
) -> None:
    done = minicontainer(*words)
    assert done.returncode == code
    assert not done.stdout
    said = done.stderr.splitlines()
    for line, expected in zip(said, lines):
        assert line.startswith(expected)
    assert len(said) >= len(lines)
    assert "Traceback" not in done.stderr
    assert not os.path.exists("/nowhere")


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["ps"], 0, "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n", ""),
        (["container", "ls", "-q"], 0, "", ""),
        (["stop", "a", "b"], 1, "",
         "Error: No such container: a\nError: No such container: b\n"),
        (["rm", "a"], 1, "", "Error: No such container: a\n"),
        (["rm", "-f", "a"], 0, "", "Warning: No such container: a\n"),
        (["rm", "-f", "--all"], 0, "", ""),
        (["start", "--all", "--filter", "restart-policy=always"], 0, "", ""),
        (["logs", "a"], 1, "", "Error: No such container: a\n"),
        (["exec", "a", "true"], 1, "", "Error: No such container: a\n"),
        (["inspect", "a"], 1, "[]\n", "Error: No such object: a\n"),
        (["inspect", "--type", "container", "a"], 1, "[]\n", "Error: No such container: a\n"),
        (["inspect", "-f", "{{.Id}}", "a"], 1, "", "Error: No such object: a\n"),
        (["port", "a"], 1, "", "Error: No such container: a\n"),
        (["ps", "--filter", "before=a"], 1, "", "Error: No such container: a\n"),
    ],
)  # fmt: skip
def test_verbs_work_before_there_is_any_container(
    words: list[str], code: int, out: str, err: str
) -> None:
    done = minicontainer(*words)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)
    assert not os.path.exists("/nowhere")


def test_version_and_info_need_nothing() -> None:
    short = minicontainer("--version")
    assert short.stdout == f"minicontainer version {cli.__version__}\n"
    assert minicontainer("-v").stdout == short.stdout
    lines = minicontainer("version").stdout.splitlines()
    assert lines[0] + "\n" == short.stdout
    names = [line.partition(":")[0] for line in lines[1:]]
    assert names == ["Python", "Kernel", "Machine", "Cgroup mode", "Storage"]
    assert minicontainer("version", "-f", "{{.Version}}").stdout == f"{cli.__version__}\n"
    facts = json.loads(minicontainer("info", "--format", "json").stdout)
    assert facts["Containers"] == 0
    assert facts["RootDir"] == "/nowhere/root"
    assert facts["NCPU"] == os.cpu_count()
    assert json.loads(minicontainer("version", "--format=json").stdout)["Python"]
    assert "Root directory: /nowhere/root\n" in minicontainer("info").stdout
    assert not os.path.exists("/nowhere")


def test_other_name_is_the_oci_runtime() -> None:
    start = START.replace("cli.main()", "cli.main(['/usr/bin/minicontainer-oci', 'state'])")
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: oci: not supported yet\n")


def test_words_come_out_with_the_bytes_they_had() -> None:
    done = minicontainer("stop", b"\xff\xfe\xc3\xa9")
    assert done.stderr == "Error: No such container: \\xff\\xfeé\n"
    done = minicontainer("stop", "a\nb\x1b[31m")
    assert done.stderr == "Error: No such container: a\\nb\\x1b[31m\n"


@pytest.mark.parametrize("lang", ["C", "POSIX", "C.UTF-8", ""])
def test_no_locale_is_needed(lang: str) -> None:
    done = minicontainer("stop", "é漢", env={"LC_ALL": lang})
    assert done.stderr == "Error: No such container: é漢\n"


def test_works_in_a_deleted_directory(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [sys.executable, "-I", "-c", START]
    script = 'rmdir "$0" && exec "$@"'
    shell = ["sh", "-c", script, str(gone)]
    done = subprocess.run(
        [*shell, *words, "--root", "/nowhere/r", "--runroot", "/nowhere/s", "ps", "-q"],
        cwd=gone, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    gone.mkdir()
    done = subprocess.run(
        [*shell, *words, "--root", "here", "ps"], cwd=gone, capture_output=True, text=True
    )
    assert done.returncode == 125
    assert done.stderr.startswith("Error: here is relative, and the working directory is gone")


def test_reader_that_leaves_ends_us_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = minicontainer("help", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_full_standard_output_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = minicontainer("help", stdout=full)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0] == "Error: write to standard output: no space left on device (ENOSPC)"


@pytest.mark.parametrize("descriptors", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_descriptors_are_replaced(descriptors: tuple[int, ...]) -> None:
    code = "import os; " + "; ".join(f"os.close({fd})" for fd in descriptors)
    start = f"{code}; {START}".replace("cli.main()", "cli._open_standard_descriptors(); ")
    start += "import os; assert all(os.stat(fd) for fd in (0, 1, 2)); os._exit(7)"
    assert subprocess.run([sys.executable, "-c", start]).returncode == 7
    closing = ["sh", "-c", '"$@" >&-', "x", sys.executable, "-I", "-c", START, "help"]
    assert subprocess.run(closing, stderr=subprocess.PIPE).returncode == 0


def test_debug_shows_the_chain() -> None:
    plain = minicontainer("stop", "a")
    chain = minicontainer("--debug", "stop", "a")
    assert chain.stderr.startswith(plain.stderr)
    assert "NotFound" in chain.stderr
    assert "Traceback" in chain.stderr
    assert minicontainer("stop", "-D", "a").stderr == chain.stderr


def test_trace_goes_to_a_file_or_standard_error(tmp_path: Path) -> None:
    target = tmp_path / "trace"
    assert minicontainer(f"--trace={target}", "ps").returncode == 0
    assert target.exists()
    done = minicontainer("--trace=/nowhere/trace", "ps")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: write the trace to /nowhere/trace")


COMMAND = options.Command("verb", "", "", perform=lambda *_: 0)
OWN = options.Command("run", "", "", perform=lambda *_: 0, failure_code=125, own_status=True)


@pytest.mark.parametrize(
    ("failure", "code", "own"),
    [
        (errors.Error("x"), 1, 125),
        (errors.UsageError("x"), 125, 125),
        (errors.NotFound("x"), 1, 125),
        (errors.Conflict("x"), 1, 125),
        (errors.KernelError("x"), 1, 125),
        (errors.CommandNotFound("x"), 1, 127),
        (errors.CommandNotInvocable("x"), 1, 126),
        (options.Refusal("x"), 1, 1),
        (options.WrongArguments("x"), 1, 1),
        (options.BadCommandLine("x"), 125, 125),
        (containers.SomeFailed([errors.UsageError("x")]), 1, 1),
        (OSError(28, "No space left on device"), 1, 125),
        (ValueError("x"), 125, 125),
        (KeyboardInterrupt(), 130, 130),
    ],
)
def test_failures_have_their_codes(failure: BaseException, code: int, own: int) -> None:
    assert report.fail(failure, COMMAND) == code
    assert report.fail(failure, OWN) == own


def test_errors_are_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    report.fail(errors.Error("it\nfailed", hint="try\tagain"), COMMAND)
    assert capfd.readouterr().err == "Error: it\\nfailed\nHint: try\\tagain\n"
    report.fail(ZeroDivisionError("division"), COMMAND)
    expected = "Error: internal error: ZeroDivisionError: division, run with --debug\n"
    assert capfd.readouterr().err == expected
    report.fail(OSError(28, "No space left on device", "/x"), COMMAND)
    assert capfd.readouterr().err.startswith("Error: verb: /x: no space left on device (ENOSPC)")
    report.fail(errors.CleanupError("took down", [OSError("a"), ValueError("b")]), COMMAND)
    assert capfd.readouterr().err == "Error: took down; a; b\n"
    output.warning("careful")
    assert capfd.readouterr().err == "Warning: careful\n"


def resolve(
    environment: dict[str, str], user: int, root: str | None = None, runroot: str | None = None
) -> tuple[str, str]:
    found = roots.resolve(root, runroot, environment, user)
    assert isinstance(found, Paths)
    return found.root, found.runroot


def test_roots_are_flag_then_environment_then_default(tmp_path: Path) -> None:
    ours = {"MINICONTAINER_ROOT": "/e/root", "MINICONTAINER_RUNROOT": "/e/run"}
    assert resolve(ours, 0, "/f/root", "/f//run/") == ("/f/root", "/f/run")
    assert resolve(ours, 0) == ("/e/root", "/e/run")
    assert resolve({"MINICONTAINER_ROOT": "", "XDG_RUNTIME_DIR": ""}, 0) == (
        "/var/lib/minicontainer",
        "/run/minicontainer",
    )
    assert resolve({}, 0, "rel", "rel/run") == (os.path.abspath("rel"), os.path.abspath("rel/run"))


def test_roots_of_ordinary_users_follow_xdg(tmp_path: Path) -> None:
    run = str(tmp_path)
    given = {"HOME": "/home/u/", "XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": run}
    assert resolve(given, 54321) == ("/d/minicontainer", f"{run}/minicontainer")
    assert resolve({"HOME": "/home/u", "XDG_DATA_HOME": "rel", "XDG_RUNTIME_DIR": ""}, 54321) == (
        "/home/u/.local/share/minicontainer",
        "/home/u/.local/share/minicontainer/run",
    )
    with pytest.raises(errors.UsageError, match="no home directory"):
        resolve({}, 54321)


def test_run_imports_little(tmp_path: Path) -> None:
    """What is loaded when the words of `run` have become options, and the engine is not yet in."""
    code = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {TOP!r})
from minicontainer import cli
from minicontainer.cli import options, run_options
command, words = cli.find(["run", "-it", "-m", "1g", "--rootfs", "/", "sh"])
run_options.collect(*options.parse(command, words))
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    ours = {name for name in loaded if name.startswith("minicontainer")}
    assert ours == {
        "minicontainer",
        "minicontainer.cli",
        "minicontainer.cli.mounts",
        "minicontainer.cli.options",
        "minicontainer.cli.output",
        "minicontainer.cli.process_options",
        "minicontainer.cli.quantities",
        "minicontainer.cli.roots",
        "minicontainer.cli.run",
        "minicontainer.cli.run_options",
        "minicontainer.cli.values",
        "minicontainer.errors",
        "minicontainer.paths",
        "minicontainer.steps",
    }
    forbidden = {"re", "typing", "json", "shutil", "textwrap", "difflib", "enum", "collections",
                 "functools", "signal", "select", "ctypes", "subprocess", "pathlib"}  # fmt: skip
    assert not forbidden & set(loaded)
