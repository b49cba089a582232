"""cli/quantities, cli/values, cli/mounts, cli/times: what the text of one flag means."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import mounts, quantities, times, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Callable


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("10b", 10),
        ("10B", 10),
        ("256m", 256 << 20),
        ("256M", 256 << 20),
        ("256mb", 256 << 20),
        ("256MiB", 256 << 20),
        ("1g", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("1.5g", 3 << 29),
        (".5k", 512),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
        ("32 MiB", 32 << 20),
        ("0.1k", 102),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: str, count: int) -> None:
    assert quantities.size(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "m", "-1", "-1x", "1x", "1e3", "0x10", "nan", "inf", "1_0", "1.2.3", ".", "１２", " 1",
     "1bb", "1mm", "9223372036854775808", "1" * 41, "9" * 30 + "t", "\n1"],
)  # fmt: skip
def test_nonsense_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|large"):
        quantities.size(text)


@given(st.integers(0, 999_999), st.sampled_from("bkmgt"), st.sampled_from(["", "i"]), st.booleans())
def test_sizes_agree_with_arithmetic(number: int, unit: str, infix: str, upper: bool) -> None:
    text = f"{number}{unit}{infix if unit != 'b' else ''}"
    assert quantities.size(text.upper() if upper else text) == number << 10 * "bkmgt".index(unit)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert 0 <= quantities.size(text) < 1 << 63
    except ValueError as reason:
        assert str(reason)


@given(st.decimals(0, 100000, places=3))
def test_fractions_of_sizes_are_exact(number: Any) -> None:
    assert quantities.size(f"{number}k") == int(number * 1024)


def test_memory_names_the_accepted_range() -> None:
    assert quantities.memory("0") is None
    assert quantities.memory("6m") == 6 << 20
    for text in ("-1x", "5m", "1", ""):
        with pytest.raises(ValueError, match="accepted from 6m"):
            quantities.memory(text)
    assert quantities.memory_swap("-1") == -1
    assert quantities.memory_swap("64m") == 64 << 20
    with pytest.raises(ValueError, match="-1 for no limit"):
        quantities.memory_swap("-2")


def test_cpus_go_from_a_hundredth_to_the_hosts() -> None:
    host = os.cpu_count() or 1
    assert quantities.cpus("0.5") == 500_000_000
    assert quantities.cpus("0.01") == 10_000_000
    assert quantities.cpus(str(host)) == host * 10**9
    for text in ("0", "0.009", str(host + 1), f"{host}.000001", "-1", "x", "", "1/2", "nan"):
        with pytest.raises(ValueError, match=f"accepted from 0.01 to {host}"):
            quantities.cpus(text)


@pytest.mark.parametrize("text", ["0", "0-3", "0,2,4-5", "007"])
def test_lists_of_cpus_are_taken(text: str) -> None:
    assert quantities.cpuset(text) == text


@pytest.mark.parametrize("text", ["", "a", "0-", "-1", "3-1", "0,,1", "1-2-3", "0 1", "²"])
def test_other_lists_of_cpus_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="0-2,7"):
        quantities.cpuset(text)


@given(st.integers(-(10**25), 10**25))
def test_whole_numbers_keep_to_their_range(number: int) -> None:
    parse = quantities.integer(-1000, 1000)
    if -1000 <= number <= 1000:
        assert parse(str(number)) == number
    else:
        with pytest.raises(ValueError, match="accepted from -1000 to 1000"):
            parse(str(number))


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (quantities.pids_limit, {"-1": -1, "0": 0, "100": 100}, ["-2", "1.5", "", "4194305"]),
        (quantities.stop_timeout, {"-1": -1, "0": 0, "10": 10}, ["-2", "1s", ""]),
        (quantities.cpu_quota, {"-1": -1, "0": 0, "50000": 50000}, ["999", "-2", "x"]),
        (values.name, {"a": "a", "Web_1.x-y": "Web_1.x-y", "/a": "a"},
         ["", "/", "-a", ".a", "_a", "a b", "a/b", "é", "a\n", "a" * 129]),
        (values.hostname, {"a": "a", "a.b-c": "a.b-c"}, ["", "-a", "a b", "ä", "a" * 65, "a\0"]),
        (values.user, {"": None, "0": "0", "a:b": "a:b", "1:2": "1:2"}, [":1", "a:b:c"]),
        (values.workdir, {"/a/../b": "/b", "//x": "/x", "/": "/"}, ["", "a", "./a"]),
        (values.cgroup_parent, {"/a/b": "/a/b", "a": "/a"}, ["", "/", "/a/../b", ".."]),
        (values.pair, {"a=b=c": ("a", "b=c"), "a": ("a", ""), "a=": ("a", "")}, ["", "=b"]),
        (values.assignment, {"a=b": ("a", "b")}, ["a", "=b"]),
        (values.sysctl, {"net.a=1": ("net.a", "1"), "net/ipv4/a=1": ("net.ipv4.a", "1"),
                         "net.ipv4.conf.eth0/1.x=1": ("net.ipv4.conf.eth0/1.x", "1")}, ["a"]),
        (values.network, {"none": "none", "host": "host"}, ["bridge", "", "container:x"]),
        (values.detach_keys, {"": "", "ctrl-p,ctrl-q": "ctrl-p,ctrl-q", "a": "a",
                              "ctrl-],x": "ctrl-],x"}, ["ctrl-", "ctrl-P", "ab", ",", "ctrl-1"]),
        (values.capabilities, {"net_raw": ["NET_RAW"], "CAP_CHOWN,all": ["CHOWN", "ALL"]},
         ["", "a,"]),
        (values.security, {"no-new-privileges": "no-new-privileges",
                           "no-new-privileges:true": "no-new-privileges",
                           "no-new-privileges=false": "no-new-privileges=false",
                           "seccomp=unconfined": "seccomp=unconfined"},
         ["seccomp=/x.json", "apparmor=x", ""]),
        (values.log_option, {"max-size=10m": ("max-size", "10000000"),
                             "max-file=3": ("max-file", "3")},
         ["max-size=0", "max-size=-1", "max-file=0", "tag=x", "max-size"]),
        (values.address, {"127.0.0.1": "127.0.0.1", "0:0::1": "::1"},
         ["", "1.2.3", "a", "1.2.3.4/8"]),
        (values.extra_host, {"h:1.2.3.4": "h:1.2.3.4", "h=::1": "h:::1", "h:[::1]": "h:::1"},
         ["h", "h:x", ":1.2.3.4", "a b:1.2.3.4", "h:host-gateway"]),
        (values.signal, {"TERM": "TERM", "SIGKILL": "SIGKILL", "9": "9", "rtmin+1": "rtmin+1"},
         ["", "FOO", "0", "65", "-1", "SIG", "TERM "[:-1] + "X"]),
        (values.restart, {"no": {"name": "no", "maximum": 0},
                          "on-failure:3": {"name": "on-failure", "maximum": 3},
                          "always": {"name": "always", "maximum": 0}},
         ["", "sometimes", "always:3", "on-failure:", "on-failure:-1", "on-failure:x"]),
        (values.ulimit, {"nofile=1:2": {"name": "nofile", "soft": 1, "hard": 2},
                         "core=0": {"name": "core", "soft": 0, "hard": 0},
                         "core=-1": {"name": "core", "soft": -1, "hard": -1},
                         "core=5:unlimited": {"name": "core", "soft": 5, "hard": -1}},
         ["nofile", "nofile=", "nofile=2:1", "nofile=-1:5", "files=1", "core=1:2:3", "core=-2"]),
    ],
)  # fmt: skip
def test_values_are_parsed_or_refused(
    parse: Callable[[str], Any], good: dict[str, Any], bad: list[str]
) -> None:
    for text, value in good.items():
        assert parse(text) == value
    for text in bad:
        with pytest.raises(ValueError, match=r"\w"):
            parse(text)


def test_namespace_modes() -> None:
    parse = values.namespace("host")
    assert parse("host") == "host"
    assert parse("private") is None
    assert parse("container:x") == "container:x"
    for text in ("container:", "", "bridge"):
        with pytest.raises(ValueError, match="accepted: private, host, container:NAME"):
            parse(text)
    with pytest.raises(ValueError, match="accepted"):
        values.namespace("host", container=False)("container:x")


def test_environment_hands_on_the_callers_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MC_KNOWN", "a=b c")
    monkeypatch.delenv("MC_UNKNOWN", raising=False)
    assert values.environment("MC_KNOWN") == "MC_KNOWN=a=b c"
    assert values.environment("MC_UNKNOWN") == "MC_UNKNOWN"
    assert values.environment("MC_KNOWN=") == "MC_KNOWN="
    for text in ("", "=x", "A=" + "x" * 65537):
        with pytest.raises(ValueError, match=r"empty|longer"):
            values.environment(text)


def test_environment_file_takes_lines_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MC_KNOWN", "v")
    file = tmp_path / "env"
    file.write_bytes(
        b"\xef\xbb\xbfA=1\r\n# comment\n\n  B='two words' \nMC_KNOWN\nD=#\xff\n  #x\nE="
    )
    found = values.environment_file(str(file))
    assert found == ["A=1", "B='two words' ", "MC_KNOWN=v", "D=#\udcff", "E="]


def test_bad_environment_files_are_named(tmp_path: Path) -> None:
    for content, words in ((b"A B=1", "contains a space"), (b"=1", "empty"), (b"A=\0", "zero")):
        (tmp_path / "env").write_bytes(content)
        with pytest.raises(ValueError, match=words):
            values.environment_file(str(tmp_path / "env"))
    with pytest.raises(ValueError, match=r"no such file or directory \(ENOENT\)"):
        values.environment_file(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="EISDIR"):
        values.environment_file(str(tmp_path))


def test_paths_of_the_host_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert values.path("../x//y") == str(tmp_path / "x/y")
    assert values.path("//etc/./x") == "/etc/x"
    (tmp_path / "gone").rmdir()
    assert values.path("/etc/x") == "/etc/x"
    with pytest.raises(ValueError, match="working directory is gone"):
        values.path("x")
    with pytest.raises(ValueError, match="expected a path"):
        values.path("")


def bind(source: str, destination: str, *options: str, create: bool = True) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": source,
        "destination": destination,
        "options": list(options),
        "create": create,
    }


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {**bind("tmpfs", destination, *options, create=False), "type": "tmpfs"}


def test_volumes() -> None:
    assert mounts.volume("/a:/b") == bind("/a", "/b")
    assert mounts.volume("/a:/b:ro") == bind("/a", "/b", "ro")
    assert mounts.volume("./a:/b/:z,rslave,ro") == bind(
        os.path.abspath("a"), "/b", "z", "rslave", "ro"
    )
    assert mounts.volume("..:/b")["source"] == os.path.dirname(os.getcwd())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a", "named volumes"),
        ("data:/b", "named volumes"),
        ("/a:", "expected HOST:CONTAINER"),
        ("/a:b", "not absolute"),
        ("/a:./b", "not absolute"),
        ("/a:/", "cannot be mounted over"),
        ("/a:/b/..", "cannot be mounted over"),
        ("/a:/b:rx", "unknown option 'rx'; accepted: ro rw"),
        ("/a:/b:", "unknown option ''"),
        ("/a:/b:ro,rw", "ro and rw exclude each other"),
        ("/a:/b:shared,slave", "exclude each other"),
        ("/a:/b:ro:z", "expected HOST:CONTAINER"),
    ],
)
def test_bad_volumes_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mounts.volume(text)


def test_mounts_in_csv() -> None:
    assert mounts.mount("type=bind,src=/a,dst=/b") == bind("/a", "/b", create=False)
    assert mounts.mount('type=bind,"source=/a,b",target=/c,readonly') == bind(
        "/a,b", "/c", "ro", create=False
    )
    assert mounts.mount(
        "type=bind,source=/a,destination=/b,ro=false,bind-propagation=rshared,bind-nonrecursive"
    ) == bind("/a", "/b", "bind", "rshared", create=False)
    assert mounts.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777,ro=1") == tmpfs(
        "/t", "ro", "size=1048576", "mode=1777"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "target is required"),
        ("type=bind,src=/a", "target is required"),
        ("type=bind,dst=/a", "source is required"),
        ("type=volume,src=x,dst=/a", "type=volume: not supported yet"),
        ("src=x,dst=/a", "type=volume: not supported yet"),
        ("type=bind,src=/a,dst=/b,foo=1", "unexpected key 'foo'"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "unexpected key 'tmpfs-size'"),
        ("type=tmpfs,src=/a,dst=/b", "no source"),
        ("type=bind,src=/a,source=/b,dst=/b", "only one of"),
        ("type=bind,src=/a,src=/b,dst=/b", "occurs twice"),
        ("type=bind,src=/a,dst=/b,ro=x", "expected true or false"),
        ("type=bind,src=/a,dst=/b,foo", "not KEY=VALUE"),
        ("type=bind,src=/a,dst=/b,bind-propagation=x", "accepted: rprivate"),
        ('type=bind,"src=/a', "not a line of CSV"),
        ("type=tmpfs,dst=/b,tmpfs-mode=99", "octal"),
    ],
)
def test_bad_mounts_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mounts.mount(text)


def test_tmpfs() -> None:
    assert mounts.tmpfs("/t") == tmpfs("/t")
    assert mounts.tmpfs("/t:rw,size=64m,mode=700,uid=5,exec") == tmpfs(
        "/t", "rw", "size=67108864", "mode=700", "uid=5", "exec"
    )
    assert mounts.tmpfs("/t:size=50%") == tmpfs("/t", "size=50%")
    for text in ("t", "/", "/t:", "/t:size=x", "/t:mode=9", "/t:mode=7777", "/t:uid=a", "/t:x=1"):
        with pytest.raises(ValueError, match=r"\w"):
            mounts.tmpfs(text)


def test_devices() -> None:
    full = {"host": "/dev/fuse", "container": "/dev/fuse", "permissions": "rwm"}
    assert mounts.device("/dev/fuse") == full
    assert mounts.device("/dev/fuse:r") == {**full, "permissions": "r"}
    assert mounts.device("/dev/fuse:/dev/x:mr") == {
        **full, "container": "/dev/x", "permissions": "mr",
    }  # fmt: skip
    for text in ("", "fuse", "/dev/fuse:x", "/a:/b:/c", "/a:/b:rr", "/a:", "/a::r", "/a:/b:r:w"):
        with pytest.raises(ValueError, match=r"\w"):
            mounts.device(text)


def test_device_rules() -> None:
    for text in ("c 10:200 rwm", "a *:* rwm", "b 8:* r"):
        assert mounts.device_rule(text) == text
    for text in ("", "c", "x 1:1 r", "c 1 r", "c 1:1 x", "c 1:1", "c a:1 r", "c 1:1 rr"):
        with pytest.raises(ValueError, match="MAJOR:MINOR"):
            mounts.device_rule(text)


@given(st.text(alphabet=':/.,="abrwozZ012%-\\ ', max_size=40))
def test_any_text_is_a_mount_or_refused(text: str) -> None:
    for parse in (mounts.volume, mounts.mount, mounts.tmpfs, mounts.device):
        try:
            found = parse(text)
        except ValueError as reason:
            assert str(reason)
        else:
            assert found.get("destination", found.get("container")).startswith("/")


def test_times_are_read_in_three_forms() -> None:
    assert times.moment("0") == 0
    assert times.moment("1700000000.5") == 1700000000.5
    assert times.moment("90s", now=1000.0) == 910.0
    assert times.moment("1h30m", now=10000.0) == 4600.0
    assert times.moment("2026-11-23T10:45:56.143698672Z") == pytest.approx(1795430756.143698672)
    assert times.moment("2026-11-23T10:45:56+01:00") == 1795427156
    assert times.moment("2026-11-23T10:45:56") == time.mktime((2026, 11, 23, 10, 45, 56, 0, 0, -1))
    assert times.moment("2026-11-23") == time.mktime((2026, 11, 23, 0, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    "text",
    ["", "x", "10x", "1h30", "2026-13-01", "2026-W01-1", "20261123", "--", "5 s", "s", "-5m"],
)
def test_other_times_are_refused(text: str) -> None:
    # 20261123 is a number of seconds, the rest is nothing.
    if text == "20261123":
        assert times.moment(text) == 20261123
        return
    with pytest.raises(ValueError, match=r"RFC 3339|expected a time"):
        times.moment(text)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert isinstance(times.moment(text), float)
    except ValueError as reason:
        assert str(reason)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"), (0.9, "Less than a second"), (1.5, "1 second"),
        (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
        (120, "2 minutes"), (59 * 60, "59 minutes"), (3600, "About an hour"),
        (89 * 60, "About an hour"), (90 * 60, "2 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"),
        (730 * 86400, "2 years"), (3650 * 86400, "10 years"),
    ],
)  # fmt: skip
def test_ages_have_one_unit(seconds: float, words: str) -> None:
    assert times.age(seconds) == words
