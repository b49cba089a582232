"""Credentials: the ladder of files, helpers, login and logout, and what asks for them."""

from __future__ import annotations

import base64
import json
import os
import stat
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer import steps
from minicontainer.errors import Error
from minicontainer.image import auth

HELPER = """\
#!/bin/sh
read -r server
echo "$1 $server" >>"$0.log"
case $1/$server in
get/quay.io|get/https://index.docker.io/v1/)
    echo '{"ServerURL":"x","Username":"helped","Secret":"s3cret"}';;
get/token.io) echo '{"ServerURL":"x","Username":"<token>","Secret":"refresh"}';;
get/broken.io) echo 'not json';;
get/slow.io) exec sleep 30;;
get/*) echo 'credentials not found in native keychain'; exit 1;;
esac
"""


def encoded(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


def write(path, document) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


@pytest.fixture
def places(tmp_path):
    """Places below a directory of the test, all of them still empty."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
    return auth.Places("", environment, str(tmp_path / "home"), "")


@pytest.fixture
def helper(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_nothing_anywhere_is_no_credential(places):
    assert auth.find("quay.io", "a/b", places) is None


def test_the_first_file_of_the_ladder_wins(places, tmp_path):
    ladder = [
        tmp_path / "home/.docker/config.json",
        tmp_path / "home/.config/containers/auth.json",
        tmp_path / "runtime/containers/auth.json",
        tmp_path / "named.json",
    ]
    places.environment["REGISTRY_AUTH_FILE"] = str(ladder[-1])
    for number, path in enumerate(ladder):
        write(path, {"auths": {"quay.io": encoded(f"user{number}:p:w")}})
        found = auth.find("quay.io", "a/b", places)
        assert found == auth.Credential(f"user{number}", "p:w", "", str(path))
    explicit = write(tmp_path / "explicit", {"auths": {"quay.io": encoded("flag:x")}})
    assert auth.find("quay.io", "a/b", places._replace(authfile=explicit)).username == "flag"


def test_docker_config_names_another_directory(places, tmp_path):
    places.environment["DOCKER_CONFIG"] = str(tmp_path / "docker")
    write(tmp_path / "docker/config.json", {"auths": {"quay.io": encoded("there:x")}})
    write(tmp_path / "home/.docker/config.json", {"auths": {"quay.io": encoded("not here:x")}})
    assert auth.find("quay.io", "a/b", places).username == "there"


def test_an_authfile_that_does_not_exist_is_an_error(places):
    with pytest.raises(Error, match="no such file"):
        auth.find("quay.io", "a/b", places._replace(authfile="/nonexistent/auth.json"))


def test_the_longest_prefix_counts(places, tmp_path):
    path = tmp_path / "home/.docker/config.json"
    auths = {
        "quay.io": encoded("host:x"),
        "quay.io/team": encoded("team:x"),
        "quay.io/team/app": encoded("app:x"),
        "https://other.io/v2/": encoded("other:x"),
        "quay.io:443": encoded("port:x"),
    }
    write(path, {"auths": auths})
    for registry, repository, user in [
        ("quay.io", "x", "host"),
        ("quay.io", "team/x", "team"),
        ("quay.io", "team/app", "app"),
        ("quay.io", "team/apple", "team"),
        ("quay.io", "teams/x", "host"),
        ("other.io", "x/y", "other"),
        ("quay.io:443", "x", "port"),
    ]:
        assert auth.find(registry, repository, places).username == user
    assert auth.find("evilquay.io", "x", places) is None
    assert auth.find("quay.io.evil.io", "x", places) is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_the_hub_goes_by_several_names(places, tmp_path, key):
    write(tmp_path / "home/.docker/config.json", {"auths": {key: encoded("hub:x")}})
    assert auth.find("docker.io", "library/x", places).username == "hub"


def test_identity_tokens_and_plain_members(places, tmp_path):
    path = tmp_path / "home/.docker/config.json"
    write(path, {"auths": {"a.io": {"auth": encoded("u:")["auth"], "identitytoken": "T"}}})
    assert auth.find("a.io", "x", places)[:3] == ("u", "", "T")
    write(path, {"auths": {"a.io": {"username": "u", "password": "p"}, "b.io": {}}})
    assert auth.find("a.io", "x", places)[:3] == ("u", "p", "")
    assert auth.find("b.io", "x", places) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": {"a.io": {"auth": "%%%"}}}',
        '{"auths": {"a.io": {"auth": "YWJj"}}}',
        '{"auths": {"a.io": {"auth": 5}}}',
        '{"credsStore": "../../bin/sh"}',
        '{"credsStore": ["x"]}',
        '{"credsStore": "is-not-installed"}',
        "\ufeff{}",
    ],
)
def test_damaged_files_are_named(places, tmp_path, text):
    path = write(tmp_path / "home/.docker/config.json", text)
    with pytest.raises(Error, match="config.json") as refused:
        auth.find("a.io", "x", places)
    assert "\n" not in str(refused.value)
    assert path in str(refused.value)


def test_odd_members_are_passed_over(places, tmp_path):
    path = tmp_path / "home/.docker/config.json"
    for document in ({"auths": []}, {"auths": {"a.io": 5}}, {"credHelpers": 5}, {}, ""):
        write(path, document)
        assert auth.find("a.io", "x", places) is None


def test_helpers_are_asked_on_stdin(places, tmp_path, helper):
    path = write(tmp_path / "home/.docker/config.json", {"credsStore": "test"})
    source = "docker-credential-test"
    assert auth.find("quay.io", "a", places) == ("helped", "s3cret", "", source)
    assert auth.find("docker.io", "library/a", places)[:2] == ("helped", "s3cret")
    assert auth.find("token.io", "a", places) == ("", "", "refresh", source)
    assert auth.find("unknown.io", "a", places) is None
    with pytest.raises(Error, match="unreadable"):
        auth.find("broken.io", "a", places)
    # An entry of auths comes before the common helper, that of a host's own helper does not.
    write(
        tmp_path / "home/.docker/config.json",
        {
            "auths": {"quay.io": encoded("entry:x"), "token.io": encoded("entry:x")},
            "credHelpers": {"token.io": "test"},
            "credsStore": "test",
        },
    )
    assert auth.find("quay.io", "a", places).source == path
    assert auth.find("token.io", "a", places).identity_token == "refresh"


def test_a_helper_that_hangs_is_given_up(places, tmp_path, helper, monkeypatch):
    write(tmp_path / "home/.docker/config.json", {"credsStore": "test"})
    monkeypatch.setattr(auth, "HELPER_SECONDS", 0.3)
    before = time.monotonic()
    with pytest.raises(Error, match="has not answered"):
        auth.find("slow.io", "a", places)
    assert time.monotonic() - before < 5


def test_under_sudo_the_callers_files_come_last_and_are_mentioned(places, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(steps, "warner", said.append)
    path = write(tmp_path / "caller/.docker/config.json", {"auths": {"a.io": encoded("caller:x")}})
    places = places._replace(caller_home=str(tmp_path / "caller"))
    assert auth.find("a.io", "x", places).username == "caller"
    assert len(said) == 1 and path in said[0]
    write(tmp_path / "home/.docker/config.json", {"auths": {"a.io": encoded("own:x")}})
    assert auth.find("a.io", "x", places).username == "own"
    assert len(said) == 1


def test_login_keeps_and_logout_forgets(places, tmp_path):
    path = auth.store("quay.io", "me", "pass:word", places)
    assert path == str(tmp_path / "runtime/containers/auth.json") or path.endswith("auth.json")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert auth.find("quay.io", "a", places)[:2] == ("me", "pass:word")
    auth.store("quay.io", "me", "other", places)
    auth.store("docker.io", "hub", "x", places)
    assert auth.find("quay.io", "a", places).password == "other"
    assert auth.erase("quay.io", places) == [path]
    assert auth.erase("quay.io", places) == []
    assert auth.find("quay.io", "a", places) is None
    assert auth.find("docker.io", "library/a", places).username == "hub"


def test_login_replaces_an_entry_where_it_is_and_keeps_the_rest(places, tmp_path):
    docker = tmp_path / "home/.docker/config.json"
    auths = {"https://index.docker.io/v1/": encoded("old:x"), "z.io": encoded("z:z")}
    write(docker, {"auths": auths, "psFormat": "table", "HttpHeaders": {"a": "b"}})
    (tmp_path / "linked.json").write_text(docker.read_text())
    docker.unlink()
    docker.symlink_to(tmp_path / "linked.json")
    assert auth.store("docker.io", "new", "y", places) == str(docker)
    assert docker.is_symlink()
    document = json.loads(docker.read_text())
    assert document["auths"]["https://index.docker.io/v1/"] == encoded("new:y")
    assert document["auths"]["z.io"] == encoded("z:z")
    assert (document["psFormat"], document["HttpHeaders"]) == ("table", {"a": "b"})


def test_login_hands_the_password_to_a_helper(places, tmp_path, helper):
    path = tmp_path / "home/.docker/config.json"
    write(path, {"credsStore": "test"})
    assert auth.store("quay.io", "me", "x", places) == "docker-credential-test"
    assert "auths" not in json.loads(path.read_text())
    assert auth.erase("quay.io", places) == ["docker-credential-test"]
    lines = helper.with_name(f"{helper.name}.log").read_text().splitlines()
    assert lines[0].startswith("store ") and '"Secret": "x"' in lines[0]
    assert lines[-1] == "erase quay.io"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("", "docker.io"), ("docker.io", "docker.io"), ("quay.io", "quay.io")),
        *(("https://quay.io/v2/", "quay.io"), ("localhost:5000", "localhost:5000")),
        *(("https://index.docker.io/v1/", "docker.io"), ("quay.io/team", "quay.io")),
    ],
)
def test_what_people_log_in_to(text, name):
    assert auth.registry_name(text) == name


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s, t",scope="repository:x:pull,push"',
            [
                (
                    "bearer",
                    {"realm": "https://a/t", "service": "s, t", "scope": "repository:x:pull,push"},
                )
            ],
        ),
        (
            'Basic realm="a", Bearer realm="b" , service=c',
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "service": "c"})],
        ),
        ("Negotiate YII+/==, Basic", [("negotiate", {}), ("yii+/", {}), ("basic", {})]),
        ('BEARER Realm = "a\\"b\\\\"', [("bearer", {"realm": 'a"b\\'})]),
        ('Bearer realm="x",realm="y"', [("bearer", {"realm": "x"})]),
        ('Bearer realm="unfinished', [("bearer", {"realm": "unfinished"})]),
        (',, ,Basic realm="x",,', [("basic", {"realm": "x"})]),
        ("Basic realm=", [("basic", {}), ("realm", {})]),
    ],
)
def test_challenges(header, expected):
    found = [entry for entry in auth.parse_challenges(header) if entry[0] != ""]
    assert [entry for entry in found if entry[0] in dict(expected)] == expected


@given(st.text(alphabet='aB=," \\\t;é/', max_size=60))
@example('Bearer realm="\\')
@example("=" * 50)
def test_any_header_is_parsed_to_an_end(header):
    for scheme, parameters in auth.parse_challenges(header):
        assert scheme and scheme == scheme.lower()
        assert all(name and name == name.lower() for name in parameters)


words = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(st.lists(st.tuples(words, st.dictionaries(words, st.text(max_size=12), max_size=3))))
def test_well_formed_challenges_survive_the_round_trip(challenges):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert auth.parse_challenges(header) == challenges


def test_a_long_header_takes_no_longer_than_it_is():
    before = time.monotonic()
    auth.parse_challenges('Bearer a="b",' * 5000)
    auth.parse_challenges("=" * 65536)
    auth.parse_challenges("a=" * 30000)
    assert time.monotonic() - before < 2
