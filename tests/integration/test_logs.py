"""`logs` of real containers: tail, follow, rotation, times; the file is Docker's."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from tests.support.runner import Engine, wait_until

pytestmark = pytest.mark.root


def path(engine: Engine, name: str) -> str:
    return str(engine.inspect(name)["LogPath"])


def parent_of(pid: int) -> int:
    return proc_number(pid, "status", "PPid:")


def rss_kib(pid: int) -> int:
    return proc_number(pid, "smaps_rollup", "Rss:")


def characters_read(pid: int) -> int:
    return proc_number(pid, "io", "rchar:")


def proc_number(pid: int, name: str, key: str) -> int:
    with open(f"/proc/{pid}/{name}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def ran(engine: Engine, script: str, *flags: str) -> str:
    """A container named c in which the script has run to its end."""
    engine.detach("--name", "c", *flags, command=("sh", "-c", script))
    engine.ok("wait", "c")
    return "c"


def test_streams_come_back_apart(engine: Engine) -> None:
    done = engine.run("logs", ran(engine, "echo out; echo err >&2"))
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_foreground_runs_log_too(engine: Engine) -> None:
    engine.ok("run", "--name", "c", "--rootfs", engine.rootfs, "echo", "hello")
    assert engine.ok("logs", "c") == "hello\n"


def test_log_is_complete_as_soon_as_the_end_is_seen(engine: Engine) -> None:
    assert engine.ok("logs", ran(engine, "seq 50000; printf unfinished")).endswith(
        "\n50000\nunfinished"
    )


def test_file_is_json_lines_for_its_group(engine: Engine) -> None:
    file = path(engine, ran(engine, "echo 'a \"b\"'"))
    assert os.path.basename(file) == engine.inspect("c")["Id"] + "-json.log"
    assert os.stat(file).st_mode & 0o777 == 0o640
    with open(file) as lines:
        text = lines.read()
    assert re.fullmatch(
        r'\{"log":"a \\"b\\"\\n","stream":"stdout",'
        r'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"\}\n',
        text,
    )


def test_long_line_is_in_pieces_of_sixteen_kib(engine: Engine) -> None:
    ran(engine, "head -c 40000 /dev/zero | tr '\\0' x; echo")
    with open(path(engine, "c")) as lines:
        pieces = [json.loads(line)["log"] for line in lines]
    assert [len(piece) for piece in pieces] == [16384, 16384, 40000 - 2 * 16384 + 1]
    assert engine.ok("logs", "c") == "x" * 40000 + "\n"


def test_tail_shows_the_last_lines(engine: Engine) -> None:
    ran(engine, "seq 1000")
    assert engine.ok("logs", "--tail", "3", "c") == "998\n999\n1000\n"
    assert engine.ok("logs", "-n", "0", "c") == ""
    assert engine.ok("logs", "--tail", "all", "c").count("\n") == 1000


def test_timestamps_are_utc_with_nine_digits(engine: Engine) -> None:
    line = engine.ok("logs", "-t", ran(engine, "echo hello"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z hello\n", line)


def test_since_and_until_bound_the_time(engine: Engine) -> None:
    ran(engine, "echo one; sleep .3; echo two; sleep .3; echo three")
    stamps = [line.split()[0] for line in engine.ok("logs", "-t", "c").splitlines()]
    assert engine.ok("logs", "--since", stamps[1], "c") == "two\nthree\n"
    assert engine.ok("logs", "--until", stamps[1], "c") == "one\ntwo\n"
    assert engine.ok("logs", "--since", "1h", "c") == "one\ntwo\nthree\n"
    assert engine.ok("logs", "--until", "1h", "c") == ""


def test_rotation_keeps_the_files_and_their_sizes(engine: Engine) -> None:
    flags = ("--log-opt", "max-size=10k", "--log-opt", "max-file=3")
    file = path(engine, ran(engine, "seq 2000", *flags))
    names = sorted(os.listdir(os.path.dirname(file)))
    files = [name for name in names if name.startswith(os.path.basename(file))]
    assert len(files) == 3
    assert all(
        os.stat(os.path.join(os.path.dirname(file), name)).st_size <= 10_000 for name in files
    )
    shown = engine.ok("logs", "c").split()
    assert shown == [str(number) for number in range(2001 - len(shown), 2001)]
    assert len(shown) > 200


def test_follow_shows_what_comes_until_the_end(engine: Engine) -> None:
    script = "echo one; while [ ! -e /go ]; do sleep .05; done; echo two"
    engine.detach("--name", "c", command=("sh", "-c", script))
    process = engine.popen("logs", "-f", "c")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    engine.ok("exec", "c", "touch", "/go")
    assert process.stdout.readline() == b"two\n"
    assert process.wait(timeout=10) == 0
    assert process.stdout.read() == b""


def test_follow_crosses_rotations(engine: Engine) -> None:
    script = "while [ ! -e /go ]; do sleep .05; done; for i in $(seq 300); do echo $i; done"
    flags = ("--log-opt", "max-size=8k", "--log-opt", "max-file=9")
    engine.detach("--name", "c", *flags, command=("sh", "-c", script))
    process = engine.popen("logs", "-f", "c")
    time.sleep(0.2)
    engine.ok("exec", "c", "touch", "/go")
    output = process.communicate(timeout=20)[0]
    assert output.split() == [b"%d" % number for number in range(1, 301)]


def test_follow_ends_with_a_removed_container(engine: Engine) -> None:
    engine.detach("--name", "c", command=("sh", "-c", "echo one; sleep 100"))
    process = engine.popen("logs", "-f", "c")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    engine.ok("rm", "-f", "c")
    assert process.wait(timeout=10) == 0


def test_log_of_a_restarted_container_goes_on(engine: Engine) -> None:
    ran(engine, "echo run")
    engine.ok("start", "c")
    engine.ok("wait", "c")
    wait_until(lambda: engine.ok("logs", "c") == "run\nrun\n")


def test_driver_none_keeps_nothing_and_says_so(engine: Engine) -> None:
    ran(engine, "echo hello", "--log-driver", "none")
    assert "does not support reading" in engine.fails(1, "logs", "c")


def test_terminal_output_is_stdout_with_carriage_returns(engine: Engine) -> None:
    ran(engine, "echo out; echo err >&2", "-t")
    done = engine.run("logs", "c")
    assert (done.stdout, done.stderr) == ("out\r\nerr\r\n", "")


def test_logs_into_head_end_quietly(engine: Engine) -> None:
    ran(engine, "seq 100000")
    process = engine.popen("logs", "c")
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    process.wait(timeout=10)
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", ["yes a line of some length", "tr '\\0' x </dev/zero"], ids=["lines", "one line"]
)
def test_memory_of_the_monitor_is_flat_through_a_gigabyte(engine: Engine, source: str) -> None:
    """RELIABILITY R8; the log is bounded too."""
    flags = ("--name", "c", "--log-opt", "max-size=1m", "--log-opt", "max-file=2")
    script = f"while [ ! -e /go ]; do sleep .05; done; {source} | head -c 1000000000; sleep 100"
    engine.detach(*flags, command=("sh", "-c", script))
    monitor = parent_of(engine.pid("c"))
    before = rss_kib(monitor)
    engine.ok("exec", "c", "touch", "/go")
    read = 0
    highest = 0
    while read < 1_000_000_000:
        read = characters_read(monitor)
        highest = max(highest, rss_kib(monitor))
        time.sleep(0.1)
    assert highest - before < 2000, f"{before} KiB before, {highest} KiB at most"
    directory = os.path.dirname(path(engine, "c"))
    logs = [name for name in os.listdir(directory) if "-json.log" in name]
    assert sum(os.stat(os.path.join(directory, name)).st_size for name in logs) <= 2_000_000
