"""Flags of `run` that say what a container is: its root, names, labels, and files about it."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from tests.support import rootfs as rootfs_builder
from tests.support.runner import Engine, wait_until

pytestmark = pytest.mark.root


def config_of(engine: Engine, container_id: str) -> dict[str, object]:
    with open(f"{engine.root}/containers/{container_id}/config.json", encoding="utf-8") as file:
        config: dict[str, object] = json.load(file)
    return config


# --rootfs


def test_rootfs_is_what_the_command_sees(engine: Engine) -> None:
    assert engine.sh("cat /etc/passwd") == rootfs_builder.PASSWD


def test_rootfs_may_be_relative(engine: Engine) -> None:
    base, name = os.path.split(engine.rootfs)
    assert engine.ok("run", "--rm", "--rootfs", name, "echo", "here", cwd=base) == "here\n"


def test_rootfs_may_be_a_link_to_a_directory(engine: Engine) -> None:
    link = f"{engine.base}/link"
    os.symlink(engine.rootfs, link)
    assert engine.ok("run", "--rm", "--rootfs", link, "echo", "here") == "here\n"


@pytest.mark.parametrize("name", ["a b", "a:b", "a,b", "a\\b", "a\\:b,c", "ü", "%s", "'\"$("])
def test_rootfs_may_have_any_name(engine: Engine, name: str) -> None:
    path = rootfs_builder.build(f"{engine.base}/{name}")
    assert engine.ok("run", "--rm", "--rootfs", path, "echo", "here") == "here\n"


def test_host_tree_is_a_rootfs(engine: Engine) -> None:
    script = "echo hello from $(hostname); echo written > /minicontainer-canary; cat /mini*-canary"
    said = engine.ok("run", "--rm", "--rootfs", "/", "sh", "-c", script)
    assert said == "hello from minicontainer\nwritten\n"
    assert not os.path.exists("/minicontainer-canary")


def test_root_directory_has_the_mode_and_owner_of_the_rootfs(engine: Engine) -> None:
    path = rootfs_builder.build(f"{engine.base}/fs")
    os.chmod(path, 0o751)
    os.chown(path, 1000, 1001)
    assert engine.ok("run", "--rm", "--rootfs", path, "stat", "-c", "%a %u %g", "/") == (
        "751 1000 1001\n"
    )


def test_files_written_survive_until_the_container_is_removed(engine: Engine) -> None:
    engine.ok("run", "--name", "w", "--rootfs", engine.rootfs, "sh", "-c", "cat /f; date > /f")
    assert engine.ok("start", "-a", "w") != ""
    engine.ok("rm", "w")


# --name


def test_name_is_a_handle(engine: Engine) -> None:
    container_id = engine.detach("--name", "web.1_x-y")
    assert engine.inspect("web.1_x-y")["Id"] == container_id
    assert engine.inspect(container_id)["Name"] == "/web.1_x-y"


def test_name_is_drawn_without_name(engine: Engine) -> None:
    container_id = engine.detach()
    assert re.fullmatch(r"/[a-z]+_[a-z]+", engine.inspect(container_id)["Name"])


def test_name_is_free_again_after_rm(engine: Engine) -> None:
    for _ in range(2):
        engine.sh("true", "--name", "again")


# --hostname, --domainname


def test_hostname_without_hostname_is_minicontainer(engine: Engine) -> None:
    script = "hostname; cat /etc/hostname; echo $HOSTNAME; grep -c minicontainer /etc/hosts"
    assert engine.sh(script) == "minicontainer\nminicontainer\nminicontainer\n1\n"


@pytest.mark.parametrize("flag", ["--hostname", "-h"])
def test_hostname_is_everywhere(engine: Engine, flag: str) -> None:
    script = "hostname; cat /etc/hostname; echo $HOSTNAME; grep -c db.example /etc/hosts"
    shown = engine.sh(script, flag, "db.example")
    assert shown == "db.example\ndb.example\ndb.example\n1\n"


def test_hostname_leaves_the_host_alone(engine: Engine) -> None:
    before = os.uname().nodename
    engine.sh("hostname", "--hostname", "other")
    assert os.uname().nodename == before


def test_domainname_is_set(engine: Engine) -> None:
    assert engine.sh("cat /proc/sys/kernel/domainname", "--domainname", "nis.example") == (
        "nis.example\n"
    )


# --label, --annotation


def test_labels_are_kept(engine: Engine) -> None:
    labels = f"{engine.base}/labels"
    with open(labels, "w", encoding="utf-8") as file:
        file.write("# a comment\nfrom=file\n\na=lost\n")
    flags = ["--label-file", labels, "--label", "a=1", "-l", "b", "--label=c=x=y"]
    container_id = engine.detach(*flags)
    assert engine.inspect(container_id)["Config"]["Labels"] == {
        "from": "file",
        "a": "1",
        "b": "",
        "c": "x=y",
    }
    assert engine.ok("ps", "-q", "--no-trunc", "--filter", "label=a=1") == container_id + "\n"
    assert engine.ok("ps", "-q", "--filter", "label=a=2") == ""


def test_annotations_reach_the_configuration(engine: Engine) -> None:
    container_id = engine.detach("--annotation", "org.example.k=v=w", "--annotation", "e=")
    assert config_of(engine, container_id)["annotations"] == {"org.example.k": "v=w", "e": ""}


# --cidfile, --pidfile


def test_cidfile_has_the_id(engine: Engine) -> None:
    path = f"{engine.base}/id"
    container_id = engine.detach("--cidfile", path)
    with open(path, encoding="ascii") as file:
        assert file.read() == container_id


def test_cidfile_that_exists_is_an_error(engine: Engine) -> None:
    path = f"{engine.base}/id"
    with open(path, "w", encoding="ascii") as file:
        file.write("mine")
    words = ["run", "--cidfile", path, "--rootfs", engine.rootfs, "true"]
    assert path in engine.fails(125, *words)
    with open(path, encoding="ascii") as file:
        assert file.read() == "mine"
    assert engine.containers() == []


def test_cidfile_that_cannot_be_written_leaves_no_container(engine: Engine) -> None:
    words = ["run", "--cidfile", f"{engine.base}/no/id", "--rootfs", engine.rootfs, "true"]
    assert "no such file or directory" in engine.fails(125, *words)
    assert engine.containers() == []


def test_pidfile_has_the_number_of_the_process_on_the_host(engine: Engine) -> None:
    path = f"{engine.base}/pid"
    engine.detach("--name", "p", "--pidfile", path)
    with open(path, encoding="ascii") as file:
        pid = int(file.read())
    assert pid == engine.pid("p")
    assert os.readlink(f"/proc/{pid}/exe") == "/bin/sleep"


def test_pidfile_that_cannot_be_written_stops_the_start(engine: Engine) -> None:
    words = ["run", "--rm", "--pidfile", f"{engine.base}/no/pid", "--rootfs", engine.rootfs]
    assert "no such file or directory" in engine.fails(125, *words, "sleep", "100")
    assert engine.containers() == []
    assert engine.leftovers() == []


# --rm


def test_container_without_rm_stays(engine: Engine) -> None:
    done = engine.run("run", "--name", "s", "--rootfs", engine.rootfs, "sh", "-c", "exit 3")
    assert done.returncode == 3
    state = engine.inspect("s")["State"]
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 3, "")


@pytest.mark.parametrize("code", [0, 9])
def test_rm_removes_after_any_exit(engine: Engine, code: int) -> None:
    words = ["run", "--rm", "--name", "r", "--rootfs", engine.rootfs, "sh", "-c"]
    assert engine.run(*words, f"echo x > /f; exit {code}").returncode == code
    assert engine.containers() == []
    assert not os.path.lexists(f"{engine.root}/names/r")


def test_rm_removes_a_detached_container_when_it_ends(engine: Engine) -> None:
    engine.detach("--rm", "--name", "r", command=["sleep", "0.2"])
    wait_until(lambda: engine.containers() == [], "the removal")


# The grammar


def test_flag_and_value_may_be_one_word_or_two(engine: Engine) -> None:
    for words in (["--hostname=h1"], ["--hostname", "h1"], ["-hh1"], ["-h=h1"]):
        assert engine.sh("hostname", *words) == "h1\n"


def test_flags_after_the_command_belong_to_it(engine: Engine) -> None:
    words = ["run", "--rm", "--rootfs", engine.rootfs, "echo", "--name", "-x", "--", "--rm"]
    assert engine.ok(*words) == "--name -x -- --rm\n"


def test_two_dashes_end_the_flags(engine: Engine) -> None:
    assert engine.ok("run", "--rm", "--rootfs", engine.rootfs, "--", "echo", "-n") == ""


def test_unknown_flag_names_the_nearest(engine: Engine) -> None:
    said = engine.fails(125, "run", "--hostnam", "x", "--rootfs", engine.rootfs, "true")
    assert "unknown flag: --hostnam" in said
    assert "--hostname" in said.partition("Hint:")[2]
    assert engine.leftovers(0) == []


def test_last_value_wins(engine: Engine) -> None:
    assert engine.sh("hostname", "--hostname", "first", "--hostname", "second") == "second\n"


def test_created_container_starts_with_what_create_was_given(engine: Engine) -> None:
    source = f"{engine.base}/source"
    os.mkdir(source)
    words = ["create", "--name", "c", "--hostname", "made", "-e", "A=b", "-v", f"{source}:/v:ro"]
    script = "hostname; echo $A; touch /v/x || echo refused"
    container_id = engine.ok(*words, "--rootfs", engine.rootfs, "sh", "-c", script).strip()
    assert re.fullmatch("[0-9a-f]{64}", container_id)
    assert engine.status("c") == "created"
    assert engine.processes() == {}
    assert engine.ok("start", "-a", "c") == "made\nb\nrefused\n"


def test_rootfs_that_vanished_is_an_error_of_start(engine: Engine) -> None:
    path = rootfs_builder.build(f"{engine.base}/fs")
    engine.ok("create", "--name", "c", "--rootfs", path, "true")
    shutil.rmtree(path)
    said = engine.fails(1, "start", "c")
    assert "no such file or directory" in said
    assert engine.leftovers(0) != [] and engine.status("c") in ("created", "exited")
