"""The client against a registry that makes mistakes: what is retried, refused, and sent to whom."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time

import pytest

from minicontainer.errors import DigestMismatch, Error, ImageError, RegistryError
from minicontainer.image import auth, media
from minicontainer.image.download import fetch
from minicontainer.image.registry import Cancelled, Client, Settings, check_login
from tests.support import registry as support
from tests.support.registry import Registry

DATA = bytes(range(256)) * 2000  # 512,000 bytes: several reads
QUICK = Settings(
    places=auth.Places("", {"XDG_RUNTIME_DIR": "/nonexistent"}, "/nonexistent", ""),
    retry_seconds=0.01,
    stall_seconds=1.0,
    certificates=(),
)


@pytest.fixture(autouse=True)
def no_credentials_of_the_host(monkeypatch):
    monkeypatch.setattr(auth, "files", lambda places: [places.authfile] if places.authfile else [])


@pytest.fixture
def server():
    with Registry() as made:
        made.add_image("x/y", "latest", [support.tar_of({"a": b"b"})])
        yield made


@pytest.fixture
def connect():
    """A function that makes clients of a server's repository x/y."""
    clients = []

    def make(server, settings=QUICK):
        clients.append(Client(server.name, "x/y", settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def get(client, descriptor, start=0):
    """A blob as `fetch` brings it."""
    pieces = []
    size = descriptor["size"]
    fetch(client, descriptor["digest"], size, start, lambda view: pieces.append(bytes(view)))
    return b"".join(pieces)


def logged_in(path, server, pair="me:secret"):
    encoded = base64.b64encode(pair.encode()).decode()
    path.write_text(json.dumps({"auths": {server.name: {"auth": encoded}}}))
    return QUICK._replace(places=QUICK.places._replace(authfile=str(path)))


def test_manifests_and_blobs_come_as_they_are(server, connect):
    client = connect(server)
    found = client.manifest("latest")
    assert found.media_type == media.OCI_MANIFEST
    assert support.digest_of(found.data) == found.digest
    descriptor = server.add_blob(DATA)
    assert get(client, descriptor) == DATA
    assert get(client, descriptor, 1000) == DATA[1000:]
    assert get(client, server.add_blob(b"")) == b""
    accept = server.asked("/manifests/")[0].headers["Accept"]
    assert all(kind in accept for kind in (*media.MANIFESTS, *media.INDEXES))
    # One connection, found out to be plain http at the first attempt.
    assert all("Authorization" not in request.headers for request in server.requests)


def test_what_is_missing_is_named(server, connect):
    with pytest.raises(RegistryError, match="x/y: manifest unknown: no such") as refused:
        connect(server).manifest("other")
    assert (refused.value.status, refused.value.code) == (404, "MANIFEST_UNKNOWN")
    with pytest.raises(RegistryError, match="404 no blob"):
        connect(server).blob("sha256:" + "0" * 64, 5)


@pytest.mark.parametrize("number", [408, 429, 500, 502, 503, 504])
def test_failures_that_pass_are_tried_again(server, connect, number):
    server.fault("/manifests/", support.status(number), times=2)
    assert connect(server).manifest("latest")
    assert len(server.asked("/manifests/")) == 3


def test_failures_that_stay_end_in_an_error(server, connect):
    server.fault("/manifests/", support.status(500, b'{"errors":[{"message":"no disk"}]}'))
    with pytest.raises(RegistryError, match="500 no disk"):
        connect(server).manifest("latest")
    assert len(server.asked("/manifests/")) == 6


def test_retry_after_is_obeyed(server, connect):
    server.fault("/manifests/", support.status(429, Retry_After="1"), times=1)
    before = time.monotonic()
    assert connect(server).manifest("latest")
    assert time.monotonic() - before >= 1


def test_a_long_retry_after_is_told_instead(server, connect):
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}'
    server.fault("/manifests/", support.status(429, body, Retry_After="3600"))
    with pytest.raises(RegistryError, match=r"toomanyrequests: You have.*in 3600 seconds"):
        connect(server).manifest("latest")
    assert len(server.asked("/manifests/")) == 1


@pytest.mark.parametrize("text", ["Fri, 01 Jan 2100 00:00:00 GMT", "soon", "-5", "9" * 5000, ""])
def test_any_retry_after_has_a_meaning(server, connect, text):
    server.fault("/manifests/", support.status(429, Retry_After=text), times=1)
    try:
        connect(server).manifest("latest")
    except RegistryError as refused:
        assert "toomanyrequests" in str(refused)


def test_a_reset_in_the_middle_goes_on_by_range(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.cut_off(200_000), times=1)
    server.fault(descriptor["digest"], support.reset, times=1)
    assert get(connect(server), descriptor) == DATA
    ranges = [request.headers.get("Range") for request in server.asked(descriptor["digest"])]
    assert ranges[0] is None
    assert ranges[-1] is not None and int(ranges[-1][6:-1]) > 0


def test_a_short_body_goes_on_by_range(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.short_body(70_000), times=2)
    assert get(connect(server), descriptor) == DATA


def test_a_server_without_ranges_is_read_from_the_start(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.status(200, DATA))
    assert get(connect(server), descriptor, 300_000) == DATA[300_000:]


@pytest.mark.parametrize("place", ["bytes 0-9/512000", "bytes 1000-5/7", "nonsense", ""])
def test_another_range_than_asked_for_is_refused(server, connect, place):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.status(206, DATA[1000:], Content_Range=place))
    with pytest.raises(DigestMismatch, match="another range"):
        get(connect(server), descriptor, 1000)


def test_a_body_that_stays_short_is_an_error(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.cut_off(0))
    with pytest.raises(RegistryError, match="reset|ended early"):
        get(connect(server), descriptor)


@pytest.mark.parametrize("announced", [len(DATA) - 1, len(DATA) + 1, 1 << 60])
def test_another_content_length_is_refused_at_once(server, connect, announced):
    descriptor = server.add_blob(DATA)
    body = support.status(200, b"x", Content_Length=str(announced))
    server.fault(descriptor["digest"], body)
    with pytest.raises(DigestMismatch, match="its manifest says"):
        get(connect(server), descriptor)


def test_an_endless_body_is_cut_off(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.endless_chunks())
    with pytest.raises(DigestMismatch, match="more comes than"):
        get(connect(server), descriptor)


@pytest.mark.parametrize("chunk", [b"x" * 65536, b"x" * 16])
def test_an_endless_manifest_is_cut_off(server, connect, chunk):
    server.fault("/manifests/", support.endless_chunks(chunk))
    before = time.monotonic()
    with pytest.raises(RegistryError, match="more than"):
        connect(server, QUICK._replace(stall_seconds=20)).manifest("latest")
    assert time.monotonic() - before < 20


@pytest.mark.parametrize("size", [media.LARGEST_DOCUMENT + 1, 1 << 70, 10**300])
def test_a_huge_manifest_is_not_read(server, connect, size):
    server.fault("/manifests/", support.status(200, b"{}", Content_Length=str(size)))
    with pytest.raises(RegistryError):
        connect(server, QUICK._replace(stall_seconds=0.3)).manifest("latest")


def test_endless_headers_are_cut_off(server, connect):
    server.fault("/manifests/", support.endless_headers)
    with pytest.raises(RegistryError, match="not HTTP|more than"):
        connect(server).manifest("latest")


@pytest.mark.parametrize("fault", [support.silence(3), support.drip_headers(0.05, 3)])
def test_silence_and_dripping_headers_are_given_up(server, connect, fault):
    server.fault("/manifests/", fault)
    settings = QUICK._replace(stall_seconds=0.2)
    before = time.monotonic()
    with pytest.raises(RegistryError, match="timed out"):
        connect(server, settings).manifest("latest")
    assert time.monotonic() - before < 6


def test_a_dripping_body_is_given_up(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.drip(0.02, 3))
    settings = QUICK._replace(stall_seconds=0.2)
    with pytest.raises(RegistryError, match=r"timed out: only \d+ bytes"):
        get(connect(server, settings), descriptor)


def test_a_slow_but_living_body_is_waited_for(server, connect):
    descriptor = server.add_blob(DATA[:100_000])

    def slowly(handler):
        handler.answer(200, b"", Content_Length="100000")
        for position in range(0, 100_000, 5000):
            handler.send(DATA[position : position + 5000])
            time.sleep(0.05)

    server.fault(descriptor["digest"], slowly)
    assert get(connect(server, QUICK._replace(stall_seconds=0.2)), descriptor) == DATA[:100_000]
    assert len(server.asked(descriptor["digest"])) == 1


def test_content_encodings_are_refused_for_manifests(server, connect):
    body = gzip.compress(b"{}")
    server.fault("/manifests/", support.status(200, body, Content_Encoding="gzip"))
    with pytest.raises(RegistryError, match="encoded"):
        connect(server).manifest("latest")


def test_other_content_types_are_refused(server, connect):
    for kind, reason in [("text/html", "unknown"), (f"{media._SCHEMA1}+prettyjws", "schema 1")]:
        server.fault("/manifests/", support.status(200, b"{}", Content_Type=kind), times=1)
        with pytest.raises(ImageError, match=reason):
            connect(server).manifest("latest")


@pytest.mark.parametrize("answer", [b"\0\1\2\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_what_is_not_http_is_an_error(server, connect, answer):
    def fault(handler):
        handler.send(answer)
        handler.close_connection = True

    server.fault("/manifests/", fault)
    with pytest.raises(RegistryError) as refused:
        connect(server).manifest("latest")
    assert str(refused.value).isprintable()


def test_redirects_go_without_credentials_to_another_host(server, connect, tmp_path):
    settings = logged_in(tmp_path / "auth.json", server)
    with Registry("127.0.0.2") as other, Registry(user=("me", "secret")) as guarded:
        settings = logged_in(tmp_path / "auth.json", guarded)
        descriptor = guarded.add_blob(DATA)
        other.add_blob(DATA)
        guarded.fault("/blobs/", _admitted(support.redirect(other.url)))
        assert get(connect(guarded, settings), descriptor) == DATA
        assert guarded.requests[-1].headers["Authorization"].startswith("Basic ")
        assert other.requests and not other.asked("secret")
        assert all("Authorization" not in request.headers for request in other.requests)


def _admitted(fault):
    def guarded(handler):
        if handler.registry.admits(handler):
            fault(handler)

    return guarded


def test_redirects_on_the_same_host_keep_credentials(connect, tmp_path):
    with Registry(user=("me", "secret")) as guarded:
        descriptor = guarded.add_blob(DATA)
        guarded.fault("/v2/x/y/blobs/", support.redirect("/elsewhere"), times=1)
        found = get(connect(guarded, logged_in(tmp_path / "a", guarded)), descriptor)
        assert found == DATA
        assert guarded.requests[1].path.startswith("/elsewhere/")
        guarded.fault("/v2/x/y/blobs/", support.redirect("/elsewhere"), times=1)
        client = connect(guarded, logged_in(tmp_path / "a", guarded))
        guarded.add_image("x/y", "latest", [])
        assert client.manifest("latest")
        assert get(client, descriptor) == DATA
        assert guarded.requests[-1].path.startswith("/elsewhere/")
        assert guarded.requests[-1].headers["Authorization"].startswith("Basic ")


def test_redirects_come_to_an_end(server, connect):
    server.fault("/manifests/", support.redirect(""))
    with pytest.raises(RegistryError, match="more than 5 redirects"):
        connect(server).manifest("latest")
    server.fault("/blobs/", support.status(307))
    with pytest.raises(RegistryError, match="without Location"):
        connect(server).blob("sha256:" + "0" * 64, 5)


@pytest.mark.parametrize("target", ["http://registry.example", "file:///etc", "https://a b"])
def test_redirects_to_plain_http_or_nonsense_are_refused(server, connect, target):
    server.fault("/manifests/", support.redirect(target))
    with pytest.raises(RegistryError, match="refused|malformed|not followed"):
        connect(server).manifest("latest")


def test_a_public_name_that_leads_inward_is_refused(server, connect, monkeypatch):
    """DNS may say what it likes: the address that was connected to is looked at."""
    from minicontainer.image.registry import hosts

    monkeypatch.setattr(hosts, "is_loopback", lambda host: False)
    settings = QUICK._replace(insecure_registries=("localhost", "127.0.0.1"))
    monkeypatch.setattr(hosts, "check_followed", lambda *unused: None)
    server.fault("/manifests/", support.redirect(f"http://localhost:{server.port}"), times=1)
    with pytest.raises(RegistryError, match="leads into this machine"):
        connect(server, settings).manifest("latest")
    assert len(server.requests) == 1


def test_basic_authorization(connect, tmp_path):
    with Registry(user=("me", "secret")) as guarded:
        guarded.add_image("x/y", "latest", [])
        assert connect(guarded, logged_in(tmp_path / "a", guarded)).manifest("latest")
        for settings in (QUICK, logged_in(tmp_path / "a", guarded, "me:wrong")):
            with pytest.raises(RegistryError, match="pull access denied") as refused:
                connect(guarded, settings).manifest("latest")
            assert "login" in (refused.value.hint or "")
            assert "secret" not in str(refused.value)


def test_bearer_tokens_are_fetched_once_and_renewed(connect, tmp_path):
    with Registry(tokens=("me", "secret")) as guarded:
        guarded.add_image("x/y", "latest", [])
        descriptor = guarded.add_blob(DATA)
        client = connect(guarded, logged_in(tmp_path / "a", guarded))
        assert client.manifest("latest")
        assert get(client, descriptor) == DATA
        (token,) = guarded.asked("/token")
        assert "scope=repository%3Ax%2Fy%3Apull" in token.path
        assert "service=fault+registry" in token.path and "account=me" in token.path
        guarded._issued.clear()  # as if they had expired
        guarded.token_seconds = 1
        assert get(client, descriptor) == DATA
        time.sleep(0.6)  # half of its life
        assert get(client, descriptor) == DATA
        assert len(guarded.asked("/token")) == 3


def test_anonymous_tokens(connect):
    with Registry(tokens=("", "")) as guarded:
        guarded.add_image("x/y", "latest", [])
        assert connect(guarded).manifest("latest")
        assert "Authorization" not in guarded.asked("/token")[0].headers


def test_identity_tokens_are_posted(connect, tmp_path):
    with Registry(tokens=("me", "refresh")) as guarded:
        guarded.add_image("x/y", "latest", [])
        path = tmp_path / "a"
        path.write_text(json.dumps({"auths": {guarded.name: {"identitytoken": "refresh"}}}))
        places = QUICK.places._replace(authfile=str(path))
        assert connect(guarded, QUICK._replace(places=places)).manifest("latest")
        (request,) = guarded.asked("/token")
        assert request.method == "POST" and "?" not in request.path
        assert b"grant_type=refresh_token" in request.body


def test_a_loop_of_401_ends(connect, tmp_path):
    with Registry(tokens=("me", "secret")) as guarded:
        guarded.token_seconds = -1  # its tokens are never good
        with pytest.raises(RegistryError, match="denied|refuses the tokens"):
            connect(guarded, logged_in(tmp_path / "a", guarded)).manifest("latest")
        assert len(guarded.requests) < 10


def test_wrong_passwords_are_told(connect, tmp_path):
    with Registry(tokens=("me", "secret")) as guarded:
        with pytest.raises(RegistryError, match="unauthorized: incorrect username"):
            connect(guarded, logged_in(tmp_path / "a", guarded, "me:no")).manifest("latest")
        with pytest.raises(RegistryError, match="pull access denied"):
            connect(guarded).manifest("latest")


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://registry.example/token"',
        'Bearer realm="ftp://registry.example/"',
        'Bearer realm="https://user:secret@registry.example/"',
        'Bearer realm=""',
        "Bearer",
        'Digest realm="x"',
        "",
    ],
)
def test_realms_that_are_not_asked(connect, tmp_path, challenge):
    with Registry(tokens=("me", "secret")) as guarded:
        guarded.challenge = challenge or "!"
        with pytest.raises(RegistryError) as refused:
            connect(guarded, logged_in(tmp_path / "a", guarded)).manifest("latest")
        assert not guarded.asked("/token")
        assert "secret" not in str(refused.value)
        assert len(guarded.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\\u00e4"}',
        b"{" * 10000,
        b'{"token": ""}',
    ],
)
def test_bad_answers_of_token_servers(connect, reply):
    with Registry(tokens=("", "")) as guarded:
        guarded.fault("/token", support.status(200, reply))
        with pytest.raises(RegistryError, match="without a token"):
            connect(guarded).manifest("latest")


def test_strange_lifetimes_of_tokens_do_no_harm(connect):
    for life in (b"-1", b'"x"', b"null", b"1e400", b"99999999999999999999"):
        with Registry(tokens=("", "")) as guarded:
            guarded.add_image("x/y", "latest", [])
            guarded._issued["t"] = time.monotonic() + 60
            body = b'{"access_token": "t", "expires_in": %s}' % life
            guarded.fault("/token", support.status(200, body))
            assert connect(guarded).manifest("latest")


def test_mirrors_are_asked_first_and_without_the_origins_password(connect, tmp_path):
    with Registry("127.0.0.2") as mirror, Registry(user=("me", "secret")) as origin:
        descriptor = origin.add_image("x/y", "latest", [])
        mirror.add_image("x/y", "latest", [])
        settings = logged_in(tmp_path / "a", origin)
        settings = settings._replace(mirrors={origin.name: [mirror.url]})
        assert connect(origin, settings).manifest("latest").digest == descriptor["digest"]
        assert not origin.requests
        mirror.challenge = 'Basic realm="give me"'
        mirror.fault("/manifests/", lambda handler: mirror.refuse(handler, ""), times=1)
        assert connect(origin, settings).manifest("latest")
        assert origin.requests
        assert all("Authorization" not in request.headers for request in mirror.requests)
        for fault in (support.status(404), support.status(500), support.silence(2)):
            mirror._faults.clear()
            mirror.fault("/manifests/", fault)
            quick = settings._replace(stall_seconds=0.2)
            assert connect(origin, quick).manifest("latest").digest == descriptor["digest"]


def test_tls_with_a_private_authority(connect, tmp_path):
    authority = support.make_authority(str(tmp_path))
    with Registry(authority=authority) as server:
        server.add_image("x/y", "latest", [])
        with pytest.raises(RegistryError, match="certificate is not trusted") as refused:
            connect(server).manifest("latest")
        assert f"certs.d/{server.name}" in (refused.value.hint or "")
        trusted = tmp_path / "certs.d" / server.name
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
        settings = QUICK._replace(certificates=("/nonexistent", str(tmp_path / "certs.d")))
        assert connect(server, settings).manifest("latest")
        assert connect(server, QUICK._replace(insecure=True)).manifest("latest")
        (trusted / "client.cert").write_text("x")
        with pytest.raises(Error, match=r"has no client\.key"):
            connect(server, settings).manifest("latest")


def test_a_proxy_is_used_with_its_password(connect, monkeypatch):
    """The proxy is a registry that gets absolute URLs."""
    seen = []

    def fault(handler):
        seen.append(dict(handler.headers.items()))
        handler.answer(200, b"{}", Content_Type=media.OCI_MANIFEST)

    def refuse_tunnel(handler):
        handler.answer(405)

    monkeypatch.setattr(support.Handler, "do_CONNECT", refuse_tunnel, raising=False)
    with Registry() as proxy:
        proxy.fault("/manifests/", fault)
        environment = {"HTTP_PROXY": f"http://u:p@{proxy.name}"}
        places = QUICK.places._replace(environment=environment)
        settings = QUICK._replace(places=places, insecure_registries=("registry.invalid:5000",))
        client = Client("registry.invalid:5000", "x/y", settings)
        client._hosts[0].scheme = "http"
        assert client.manifest("latest").data == b"{}"
        client.close()
        assert proxy.requests[0].path == "http://registry.invalid:5000/v2/x/y/manifests/latest"
        assert seen[0]["Proxy-Authorization"] == "Basic dTpw"
        assert seen[0]["Host"] == "registry.invalid:5000"
        environment["HTTPS_PROXY"] = f"http://{proxy.name}"
        client = Client("registry.example", "x/y", settings)
        with pytest.raises(RegistryError, match="405"):
            client.manifest("latest")
        client.close()


def test_an_unreachable_registry_is_told_at_once(connect):
    with Registry() as gone:
        pass
    before = time.monotonic()
    with pytest.raises(RegistryError, match=r"^GET https?://127.*: connection refused$"):
        connect(gone).manifest("latest")
    assert time.monotonic() - before < 2


def test_login_is_tried_out():
    with Registry(user=("me", "secret")) as basic, Registry(tokens=("me", "secret")) as bearer:
        for server in (basic, bearer):
            check_login(server.name, "me", "secret", QUICK)
            with pytest.raises(RegistryError, match="unauthorized"):
                check_login(server.name, "me", "wrong", QUICK)


def test_cancelling_ends_a_read_and_a_pause_at_once(server, connect):
    descriptor = server.add_blob(DATA)
    server.fault(descriptor["digest"], support.drip(0.5, 5), times=1)
    for settings in (QUICK, QUICK._replace(retry_seconds=30)):
        client = connect(server, settings._replace(stall_seconds=30))
        timer = threading.Timer(0.3, client.wire.cancel)
        timer.start()
        before = time.monotonic()
        with pytest.raises(Cancelled):
            get(client, descriptor)
        assert time.monotonic() - before < 3
        server.fault(descriptor["digest"], support.reset)


def test_connections_are_used_again_but_not_when_stale(server, connect):
    client = connect(server)
    for _ in range(3):
        client.manifest("latest")
    assert sum(len(kept) for kept in client.wire._idle.values()) == 1
    for kept in client.wire._idle.values():
        kept[0].interrupt()
    assert client.manifest("latest")


def test_a_negative_chunk_is_no_licence(server, connect):
    def fault(handler):
        handler.answer(200, b"", Transfer_Encoding="chunked")
        handler.send(b"-1\r\n" + b"x" * 100)
        handler.close_connection = True

    server.fault("/manifests/", fault)
    try:
        assert len(connect(server).manifest("latest").data) < 1000
    except RegistryError:
        pass
