"""The verbs of images: in, listed, named, out, removed."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from tests.support import images, rootfs
from tests.support.images import Made, directory, member, symlink, tar
from tests.support.registry import Registry
from tests.support.runner import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root

NAME = "docker.io/library/bb:1"
HISTORY = [
    {"created": "2024-01-01T00:00:00Z", "created_by": "ADD rootfs.tar /"},
    {"created": "2024-01-02T00:00:00Z", "created_by": "ENV A=b", "empty_layer": True},
    {"created": "2024-05-06T07:08:09Z", "created_by": "RUN date > /made " + "x" * 60},
]


def busybox(text: bytes = b"made\n") -> Made:
    """An image of two layers, the first with a busybox."""
    program = Path(rootfs.busybox()).read_bytes()
    return Made(
        [
            tar(
                directory("bin"),
                member("bin/busybox", program, mode=0o755),
                symlink("bin/sh", "busybox"),
                symlink("bin/cat", "busybox"),
            ),
            tar(member("made", text)),
        ],
        config={"Cmd": ["/bin/cat", "/made"], "Labels": {"stage": "test"}},
        history=HISTORY,
    )


@pytest.fixture(scope="module")
def made() -> Made:
    return busybox()


@pytest.fixture
def loaded(engine: Engine, made: Made) -> Engine:
    """An engine with the image bb:1."""
    engine.ok("load", input=images.archive(made.layout(NAME)))
    return engine


def image_id(made: Made) -> str:
    return str(made.manifest["config"]["digest"])  # type: ignore[index]


def listed(engine: Engine, *flags: str) -> list[str]:
    return engine.ok("images", *flags).splitlines()


def store_of(engine: Engine) -> dict[str, list[str]]:
    root = Path(engine.root)
    return {
        "blobs": sorted(os.listdir(root / "images/blobs/sha256")),
        "layers": sorted(os.listdir(root / "layers")),
    }


EMPTY: dict[str, list[str]] = {"blobs": [], "layers": []}


# ------------------------------------------------------------------------------- load, list


def test_no_images_is_an_empty_table(engine: Engine) -> None:
    assert engine.ok("images") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    assert engine.ok("images", "-q") == ""


@pytest.mark.parametrize("how", ["stdin", "file", "gzip", "directory"])
def test_load(engine: Engine, made: Made, how: str) -> None:
    archive = images.archive(made.layout(NAME))
    path = Path(engine.base) / "archive"
    if how == "stdin":
        answer = engine.ok("load", input=archive)
    else:
        if how == "directory":
            for name, data in made.layout(NAME).items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        else:
            path.write_bytes(gzip.compress(archive, 1) if how == "gzip" else archive)
        answer = engine.ok("load", "--input", str(path))
    assert answer == "Loaded image: bb:1\n"
    assert listed(engine, "-q") == [image_id(made)[7:19]]


def test_load_of_an_image_without_a_name(engine: Engine, made: Made) -> None:
    answer = engine.ok("load", input=images.archive(made.layout()))
    assert answer == f"Loaded image ID: {image_id(made)}\n"
    assert listed(engine)[1].split()[:2] == ["<none>", "<none>"]
    assert listed(engine, "--filter", "dangling=true", "-q") == [image_id(made)[7:19]]


def test_load_of_what_is_no_archive(engine: Engine) -> None:
    assert "neither index.json nor manifest.json" in engine.fails(
        1, "load", input=images.archive({"etc/passwd": b""})
    )
    assert engine.ok("images", "-q") == ""


def test_table(loaded: Engine, made: Made) -> None:
    heading, line = listed(loaded)
    assert re.split(r"\s{2,}", heading) == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    cells = re.split(r"\s{2,}", line)
    assert cells[:3] == ["bb", "1", image_id(made)[7:19]]
    assert cells[3].endswith(" ago")
    assert re.fullmatch(r"[\d.]+MB", cells[4])
    assert "DIGEST" in listed(loaded, "--digests")[0]
    assert image_id(made) in listed(loaded, "--no-trunc")[1]
    assert listed(loaded, "-q", "--no-trunc") == [image_id(made)]
    assert listed(loaded, "bb") == listed(loaded)
    assert len(listed(loaded, "other")) == 1
    facts = json.loads(loaded.ok("images", "--format", "json"))
    assert (facts["Repository"], facts["Tag"], facts["Containers"]) == ("bb", "1", "0")
    assert listed(loaded, "--format", "{{.Repository}}:{{.Tag}} {{.ID}}") == [
        f"bb:1 {image_id(made)[7:19]}"
    ]
    assert listed(loaded, "--filter", "label=stage=test", "-q") == [image_id(made)[7:19]]
    assert listed(loaded, "--filter", "label=stage=live", "-q") == []
    assert loaded.ok("image", "ls") == loaded.ok("images")


def test_history(loaded: Engine, made: Made) -> None:
    heading, *lines = loaded.ok("history", "bb:1").splitlines()
    assert re.split(r"\s{2,}", heading) == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    assert [line.split()[0] for line in lines] == [image_id(made)[7:19], "<missing>", "<missing>"]
    assert "RUN date" in lines[0] and "…" in lines[0] and " 5B" in lines[0]
    assert "ENV A=b" in lines[1] and " 0B" in lines[1]
    full = loaded.ok("history", "--no-trunc", "--human=false", "bb:1")
    assert "x" * 60 in full and "CREATED AT" in full
    assert loaded.ok("history", "-q", "bb:1").splitlines()[0] == image_id(made)[7:19]


def test_inspect(loaded: Engine, made: Made) -> None:
    (facts,) = json.loads(loaded.ok("inspect", "bb:1"))
    assert facts["Id"] == image_id(made)
    assert facts["RepoTags"] == ["bb:1"]
    assert facts["Config"]["Cmd"] == ["/bin/cat", "/made"]
    assert facts["RootFS"]["Layers"] == made.config["rootfs"]["diff_ids"]  # type: ignore[index]
    loaded.ok("create", "--name", "bb", "bb:1")
    tagged = loaded.ok("tag", "bb:1", "bb")
    assert tagged == ""
    assert json.loads(loaded.ok("inspect", "bb"))[0]["Name"] == "/bb"
    assert json.loads(loaded.ok("inspect", "--type", "image", "bb"))[0]["Id"] == image_id(made)
    assert json.loads(loaded.ok("image", "inspect", "bb"))[0]["Id"] == image_id(made)
    assert loaded.ok("inspect", "-f", "{{.Config.Labels.stage}}", "bb:1") == "test\n"
    result = loaded.run("inspect", "nothing")
    assert (result.returncode, result.stdout) == (1, "[]\n")
    assert "No such object: nothing" in result.stderr
    assert "No such image: nothing" in loaded.fails(1, "image", "inspect", "nothing")
    assert "No such container: bb:1" in loaded.fails(1, "container", "inspect", "bb:1")


# ------------------------------------------------------------------------------- tag and rmi


def test_tag_and_untag(loaded: Engine, made: Made) -> None:
    before = store_of(loaded)
    loaded.ok("tag", "bb:1", "quay.io/a/b")
    loaded.ok("tag", image_id(made)[7:15], "bb:2")
    names = listed(loaded, "--format", "{{.Repository}}:{{.Tag}}")
    assert sorted(names) == ["bb:1", "bb:2", "quay.io/a/b:latest"]
    assert loaded.ok("rmi", "quay.io/a/b") == "Untagged: quay.io/a/b:latest\n"
    assert loaded.ok("rmi", "bb:1") == "Untagged: bb:1\n"
    assert store_of(loaded) == before
    lines = loaded.ok("rmi", "bb:2").splitlines()
    assert lines[:2] == ["Untagged: bb:2", f"Deleted: {image_id(made)}"]
    assert len(lines) == 4
    assert store_of(loaded) == EMPTY


def test_tag_moves_a_name(loaded: Engine, made: Made) -> None:
    other = busybox(b"other\n")
    loaded.ok("load", input=images.archive(other.layout("docker.io/library/other:1")))
    assert len(store_of(loaded)["layers"]) == 3  # the lower one is shared
    loaded.ok("tag", "other:1", "bb:1")
    assert loaded.ok("inspect", "-f", "{{.Id}}", "bb:1").strip() == image_id(other)
    assert listed(loaded, "--filter", "dangling=true", "-q") == [image_id(made)[7:19]]
    assert "Removed: image " + image_id(made)[7:19] in loaded.ok("prune")
    assert len(store_of(loaded)["layers"]) == 2
    assert loaded.ok("run", "--rm", "bb:1") == "other\n"


def test_id_of_several_repositories_must_be_forced(loaded: Engine, made: Made) -> None:
    loaded.ok("tag", "bb:1", "quay.io/a/b")
    text = loaded.fails(1, "rmi", image_id(made)[7:19])
    assert "conflict: unable to delete" in text and "multiple repositories" in text
    assert "Deleted: " + image_id(made) in loaded.ok("rmi", "-f", image_id(made)[7:19])
    assert store_of(loaded) == EMPTY


def test_image_in_use_is_kept_unless_forced(loaded: Engine, made: Made) -> None:
    loaded.ok("create", "--name", "user", "bb:1")
    before = store_of(loaded)["layers"]
    text = loaded.fails(1, "rmi", "bb:1")
    assert "conflict: unable to remove" in text and "must force" in text
    assert listed(loaded, "-q") == [image_id(made)[7:19]]
    assert "Deleted: " + image_id(made) in loaded.ok("rmi", "--force", "bb:1")
    assert listed(loaded, "-q") == []
    assert store_of(loaded)["layers"] == before
    assert loaded.ok("start", "-a", "user") == "made\n"
    loaded.ok("prune", "--type", "image")
    assert store_of(loaded)["layers"] == before
    loaded.ok("rm", "user")
    loaded.ok("prune")
    assert store_of(loaded) == EMPTY


def test_image_of_a_running_container_stays(loaded: Engine, made: Made) -> None:
    loaded.ok("run", "-d", "--name", "user", "bb:1", "sh", "-c", "busybox sleep 1000")
    assert "conflict: unable to delete" in loaded.fails(1, "rmi", image_id(made))
    assert loaded.ok("rmi", "-f", image_id(made)) == "Untagged: bb:1\n"
    assert "cannot be forced" in loaded.fails(1, "rmi", "-f", image_id(made))
    assert loaded.status("user") == "running"
    loaded.ok("rm", "-f", "user")
    assert "Deleted: " + image_id(made) in loaded.ok("rmi", image_id(made))


def test_what_is_gone_is_an_error_unless_forced(engine: Engine) -> None:
    assert "No such image: x" in engine.fails(1, "rmi", "x")
    done = engine.run("rmi", "-f", "x")
    assert (done.returncode, done.stdout) == (0, "")
    assert "No such image: x" in done.stderr
    assert "No such image: x" in engine.fails(1, "tag", "x", "y")
    assert "No such image: x" in engine.fails(1, "save", "x")
    assert "No such image: x" in engine.fails(1, "history", "x")


# ------------------------------------------------------------------------------ save, import


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_what_is_saved_here_is_the_same_there(
    make_engine: Callable[[], Engine], made: Made, form: str
) -> None:
    here, there = make_engine(), make_engine()
    here.ok("load", input=images.archive(made.layout(NAME)))
    path = os.path.join(here.base, "saved")
    again = os.path.join(there.base, "saved")
    here.ok("save", "--format", form, "-o", path, "bb:1")
    assert there.ok("load", "-i", path) == "Loaded image: bb:1\n"
    assert listed(there, "--no-trunc") == listed(here, "--no-trunc")
    assert there.ok("inspect", "bb:1").replace(there.root, here.root) == here.ok("inspect", "bb:1")
    assert store_of(there) == store_of(here)
    there.ok("save", "--format", form, "-o", again, "bb:1")
    if form != "oci-dir":
        assert Path(again).read_bytes() == Path(path).read_bytes()
    assert there.ok("run", "--rm", "bb:1") == "made\n"


def test_save_through_a_pipe(loaded: Engine) -> None:
    loaded.ok("tag", "bb:1", "other:2")
    data = loaded.run("save", "bb:1", "other:2", text=False, check=True).stdout
    assert b"manifest.json" in data
    loaded.ok("rmi", "bb:1", "other:2")
    answer = loaded.ok("load", input=data)
    assert sorted(answer.splitlines()) == ["Loaded image: bb:1", "Loaded image: other:2"]
    assert "cannot be written to a pipe" in loaded.fails(1, "save", "--format", "oci-dir", "bb:1")


def test_same_image_with_plain_layers_goes_with_it(loaded: Engine, made: Made) -> None:
    data = loaded.run("save", "--plain", "bb:1", text=False, check=True).stdout
    assert loaded.ok("load", input=data) == "Loaded image: bb:1\n"
    assert listed(loaded, "-q", "--no-trunc") == [image_id(made)] * 2
    assert loaded.ok("run", "--rm", "bb:1") == "made\n"
    loaded.ok("rmi", "bb:1")
    assert store_of(loaded) == EMPTY


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_import_of_a_tarball(engine: Engine, made: Made, how: str) -> None:
    tarball = gzip.compress(made.layers[0], 1)
    path = Path(engine.base) / "rootfs.tar.gz"
    path.write_bytes(tarball)
    flags = ["--change", 'CMD ["/bin/sh", "-c", "echo $A"]', "-c", "ENV A=hello", "-m", "by hand"]
    source = "-" if how == "stdin" else str(path)
    answer = engine.ok("import", *flags, source, "mine", input=tarball)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", answer)
    assert listed(engine, "--format", "{{.Repository}}:{{.Tag}}") == ["mine:latest"]
    assert (
        engine.ok("inspect", "-f", "{{.Id}} {{.Comment}}", "mine") == f"{answer.strip()} by hand\n"
    )
    assert engine.ok("run", "--rm", "mine") == "hello\n"
    assert "by hand" in engine.ok("history", "mine")


def test_import_without_a_name_and_of_nonsense(engine: Engine, made: Made) -> None:
    answer = engine.ok("import", "-", input=made.layers[1]).strip()
    assert listed(engine)[1].split()[:3] == ["<none>", "<none>", answer[7:19]]
    assert "invalid reference format" in engine.fails(125, "import", "-", "Upper", input=b"")
    engine.fails(1, "import", "-", "x", input=b"not a tarball" * 1000)
    assert len(listed(engine, "-q")) == 1


# ----------------------------------------------------------------------------------- prune


def test_prune_all_takes_what_no_container_needs(loaded: Engine, made: Made) -> None:
    loaded.ok("load", input=images.archive(busybox(b"2").layout("docker.io/library/used:1")))
    loaded.ok("run", "-d", "--name", "user", "used:1", "sh", "-c", "busybox sleep 1000")
    assert loaded.ok("prune") == "Nothing to clean.\n"
    told = loaded.ok("prune", "-a", "--dry-run").splitlines()
    assert told[0] == "Would remove: image bb:1"
    assert len(listed(loaded)) == 3
    lines = loaded.ok("prune", "-a", "-f").splitlines()
    assert [line.replace("Removed", "Would remove") for line in lines[:-1]] == told[:-1]
    assert f"Removed: layer {made.config['rootfs']['diff_ids'][1][7:19]}" in lines  # type: ignore[index]
    assert re.fullmatch(r"Total reclaimed space: [\d.]+[kM]?B", lines[-1])
    assert listed(loaded, "--format", "{{.Repository}}") == ["used"]
    assert loaded.status("user") == "running"
    assert os.listdir(os.path.join(loaded.root, "trash")) == []


def test_prune_asks_and_chooses(loaded: Engine) -> None:
    done = loaded.run("prune", "-a", input="n\n")
    assert done.returncode == 1 and "[y/N]" in done.stderr
    keep = ["--filter", "until=2023-01-01T00:00:00Z", "--filter", "label=stage"]
    assert loaded.ok("image", "prune", "-a", "-f", *keep) == "Nothing to clean.\n"
    loaded.ok("create", "--name", "stopped", "--rootfs", loaded.rootfs, "true")
    assert "image bb:1" in loaded.ok("image", "prune", "-a", "-f", "--filter", "label=stage=test")
    assert loaded.status("stopped") == "created"
    assert loaded.ok("container", "prune", "-f").startswith("Removed: container stopped\n")


def test_damaged_image_hinders_nobody(loaded: Engine, made: Made) -> None:
    blob = Path(loaded.root) / "images/blobs/sha256" / image_id(made)[7:]
    blob.write_bytes(b"x" * blob.stat().st_size)
    loaded.ok("load", input=images.archive(busybox(b"2").layout("docker.io/library/good:1")))
    assert len(listed(loaded)) == 3
    loaded.ok("prune")
    assert loaded.ok("run", "--rm", "good:1") == "2"
    assert "Untagged: bb:1" in loaded.ok("rmi", "bb:1")
    loaded.ok("rmi", "good:1")
    assert store_of(loaded) == EMPTY


# ------------------------------------------------------------------------------------ pull


def test_pull_tells_each_state_once(engine: Engine, made: Made) -> None:
    with Registry() as server:
        server.add_image("a/b", "1", made.layers, config=made.config["config"])
        name = f"{server.name}/a/b:1"
        lines = engine.ok("pull", name).splitlines()
        assert lines[0] == "1: Pulling from a/b"
        assert lines[-2:] == [f"Status: Downloaded newer image for {name}", name]
        assert lines[-3].startswith("Digest: sha256:")
        states = [line.partition(": ")[2] for line in lines[1:-3]]
        assert states.count("Pull complete") == states.count("Pulling fs layer") == 2
        assert len(set(lines)) == len(lines)
        again = engine.ok("pull", name).splitlines()
        assert again[-2] == f"Status: Image is up to date for {name}"
        assert engine.ok("pull", "-q", name) == f"{name}\n"
        assert listed(engine, "--digests", "--format", "{{.Digest}}")[0].startswith("sha256:")
        assert engine.ok("run", "--rm", name) == "made\n"
        assert "manifest unknown" in engine.fails(1, "pull", f"{server.name}/a/b:2")
    assert "invalid reference format" in engine.fails(125, "pull", "X")


def test_pull_on_a_terminal_shows_bars(engine: Engine, made: Made) -> None:
    with Registry() as server:
        server.add_image("a/b", "1", made.layers)
        terminal = engine.pty("pull", f"{server.name}/a/b:1")
        terminal.expect(f"{server.name}/a/b:1\r\n")
        assert terminal.wait() == 0
        assert "Pull complete" in terminal.output and "\x1b[2K" in terminal.output


def test_login_is_checked_kept_and_used(engine: Engine, made: Made) -> None:
    authfile = os.path.join(engine.base, "auth.json")
    with Registry(user=("me", "secret")) as server:
        server.add_image("a/b", "1", made.layers)
        name = f"{server.name}/a/b:1"
        assert "denied" in engine.fails(1, "pull", name)
        flags = ["--authfile", authfile, "-u", "me", "--password-stdin", server.name]
        assert "unauthorized" in engine.fails(1, "login", *flags, input="wrong")
        assert not os.path.exists(authfile)
        assert engine.ok("login", *flags, input="secret\n").startswith("Login Succeeded")
        assert os.stat(authfile).st_mode & 0o777 == 0o600
        engine.ok("pull", "-q", "--authfile", authfile, name)
        assert engine.ok("logout", "--authfile", authfile, server.name).startswith("Removing")
        assert engine.ok("logout", "--authfile", authfile, server.name).startswith("Not logged in")
