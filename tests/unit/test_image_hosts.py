"""Which host is asked, by https or http, through which proxy, and where it may send us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import Error, RegistryError, UsageError
from minicontainer.image.auth import Places
from minicontainer.image.registry import hosts
from minicontainer.image.registry.hosts import Settings, Url


def with_environment(**environment):
    return Settings(places=Places("", environment, "", ""))


def test_docker_hub_answers_elsewhere():
    (endpoint,) = hosts.endpoints("docker.io", Settings())
    assert (endpoint.name, endpoint.host, endpoint.port) == (
        "docker.io",
        "registry-1.docker.io",
        None,
    )
    assert not endpoint.may_http and endpoint.verify


def test_mirrors_come_first_in_order():
    settings = Settings(mirrors={"quay.io": ["https://m.io", "n.io:5000/cache/"]})
    first, second, third = hosts.endpoints("quay.io", settings)
    assert (first.name, first.is_mirror, first.prefix) == ("m.io", True, "")
    assert (second.host, second.port, second.prefix) == ("n.io", 5000, "cache/")
    assert (third.name, third.is_mirror) == ("quay.io", False)
    assert len(hosts.endpoints("other.io", settings)) == 1


@pytest.mark.parametrize("url", ["http://m.io", "ftp://m.io", "https://", "https://a b", "m.io?x"])
def test_mirrors_that_cannot_be_used_are_named(url):
    with pytest.raises(UsageError, match="mirror"):
        hosts.endpoints("quay.io", Settings(mirrors={"quay.io": [url]}))


def test_a_mirror_by_http_needs_leave():
    settings = Settings(mirrors={"q.io": ["http://m.io"]}, insecure_registries=("m.io",))
    assert hosts.endpoints("q.io", settings)[0][:3] == ("m.io", "m.io", 80)
    loopback = Settings(mirrors={"q.io": ["http://127.0.0.1:5000"]})
    assert hosts.endpoints("q.io", loopback)[0].may_http


def test_blocked_registries_are_refused():
    with pytest.raises(RegistryError, match="blocked"):
        hosts.endpoints("bad.io", Settings(blocked=("bad.io",)))


@pytest.mark.parametrize(
    ("registry", "may_http", "verify"),
    [
        ("quay.io", False, True),
        ("localhost:5000", True, True),
        ("127.0.0.9", True, True),
        ("[::1]:5000", True, True),
        ("one.io", True, False),
        ("one.io:5000", True, False),
        ("two.io:5000", True, False),
        ("two.io:5001", False, True),
        ("two.io", False, True),
        ("10.1.2.3:80", True, False),
        ("11.1.2.3:80", False, True),
        ("[fd00::5]:80", True, False),
    ],
)
def test_plain_http_is_for_loopback_and_those_configured(registry, may_http, verify):
    settings = Settings(insecure_registries=("one.io", "two.io:5000", "10.0.0.0/8", "fd00::/8"))
    endpoint = hosts.endpoints(registry, settings)[-1]
    assert (endpoint.may_http, endpoint.verify) == (may_http, verify)
    insecure = hosts.endpoints(registry, settings._replace(insecure=True))[-1]
    assert (insecure.may_http, insecure.verify) == (True, False)


def test_a_configuration_has_the_keys_of_docker():
    configuration = {
        "registry-mirrors": ["https://hub.m"],
        "mirrors": {"quay.io": ["https://q.m"]},
        "insecure-registries": ["a.io"],
        "proxies": {"http-proxy": "http://p:1"},
        "max-concurrent-downloads": 7,
    }
    settings = hosts.settings_from(configuration, Places("", {}, "", ""))
    assert settings.mirrors == {"docker.io": ["https://hub.m"], "quay.io": ["https://q.m"]}
    assert settings.insecure_registries == ("a.io",)
    assert (settings.parallel, settings.insecure) == (7, False)
    assert hosts.settings_from({}, Places("", {}, "", "")).parallel == 3


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "excluded"),
    [
        *(("", "a.io", 443, False), ("*", "a.io", 443, True), ("a.io", "a.io", 443, True)),
        *(("A.IO", "a.io", 443, True), ("a.io", "x.a.io", 443, True), ("a.io", "xa.io", 1, False)),
        *((".a.io", "x.a.io", 443, True), (".a.io", "a.io", 443, False)),
        *(("a.io:80", "a.io", 443, False), ("a.io:443", "a.io", 443, True)),
        *(("a.io:443", "x.a.io", 443, True), ("b.io, a.io", "a.io", 443, True)),
        *(("10.0.0.0/8", "10.9.8.7", 1, True), ("10.0.0.0/8", "11.9.8.7", 1, False)),
        *(("10.0.0.1", "10.0.0.1", 1, True), ("fd00::/8", "fd12::1", 1, True)),
        *(("[fd00::1]", "fd00::1", 1, True), ("10.0.0.0/8", "a.io", 1, False)),
        *(("b.io c.io", "c.io", 1, True), (":80", "a.io", 80, False), ("/", "a.io", 1, False)),
    ],
)
def test_no_proxy(no_proxy, host, port, excluded):
    assert hosts.is_excluded(host, port, no_proxy) is excluded


@given(st.text(max_size=30), st.sampled_from(["a.io", "10.0.0.1", "fd00::1"]))
def test_any_no_proxy_has_an_answer(no_proxy, host):
    assert hosts.is_excluded(host, 443, no_proxy) in (True, False)


def test_proxies_of_the_configuration_beat_those_of_the_environment():
    settings = with_environment(https_proxy="http://low:1", HTTPS_PROXY="http://up:2")
    assert hosts.proxy_for("https", "a.io", 443, settings) == ("low", 1, "")
    assert hosts.proxy_for("http", "a.io", 80, settings) is None
    configured = settings._replace(proxies={"https-proxy": "http://u:p%40ss@c:3"})
    assert hosts.proxy_for("https", "a.io", 443, configured) == ("c", 3, "u:p@ss")
    excluded = configured._replace(proxies={**configured.proxies, "no-proxy": "a.io"})
    assert hosts.proxy_for("https", "a.io", 443, excluded) is None


def test_loopback_is_asked_directly():
    settings = with_environment(HTTP_PROXY="http://p:1", HTTPS_PROXY="http://p:1")
    for host in ("localhost", "127.0.0.5", "::1"):
        assert hosts.proxy_for("http", host, 80, settings) is None


@pytest.mark.parametrize("proxy", ["socks5://p:1", "https://p:1", "http://p:x", "http://", "a b:x"])
def test_proxies_that_cannot_be_used_are_named(proxy):
    with pytest.raises(UsageError, match="proxy"):
        hosts.proxy_for("https", "a.io", 443, with_environment(HTTPS_PROXY=proxy))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://b.io/x?y=z", ("https", "b.io", 443, "/x?y=z")),
        ("http://b.io:81", ("http", "b.io", 81, "/")),
        ("/x", ("https", "a.io", 5000, "/x")),
        ("x", ("https", "a.io", 5000, "/v2/x")),
        ("//b.io/x", ("https", "b.io", 443, "/x")),
        ("https://[::1]:80/x#f", ("https", "::1", 80, "/x")),
    ],
)
def test_urls_are_followed_relative_to_their_base(text, expected):
    assert tuple(hosts.parse_url(text, Url("https", "a.io", 5000, "/v2/"))) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "file:///etc/passwd",
            "ftp://a/b",
            "https://",
            "https://a:99999/",
            "http://a b/",
        ),
        *("https://a/\r\nX: y", "https://u:p@a/", "https://a:b/", "https://ä/", "gopher://a/"),
        "https://a/" + "x" * 20000,
    ],
)
def test_urls_that_are_not_followed(text):
    with pytest.raises(RegistryError, match="malformed|not followed") as refused:
        hosts.parse_url(text)
    assert "\n" not in str(refused.value) and "\r" not in str(refused.value)


@given(st.text(max_size=60))
def test_any_url_is_parsed_or_refused(text):
    try:
        url = hosts.parse_url(text, Url("https", "a.io", 443, "/"))
    except RegistryError:
        return
    assert url.scheme in ("http", "https")
    assert hosts.parse_url(hosts.url_text(url)) == url


@pytest.mark.parametrize(
    ("target", "origin", "allowed"),
    [
        ("https://cdn.io/x", "a.io", True),
        ("http://cdn.io/x", "a.io", False),
        ("http://insecure.io/x", "a.io", True),
        ("https://127.0.0.1/x", "a.io", False),
        ("https://localhost/x", "a.io", False),
        ("https://169.254.169.254/x", "a.io", False),
        ("https://[::ffff:127.0.0.1]/x", "a.io", False),
        ("https://[fe80::1]/x", "a.io", False),
        ("https://0.0.0.0/x", "a.io", False),
        ("http://127.0.0.1/x", "localhost", True),
        ("https://169.254.169.254/x", "169.254.169.254", True),
    ],
)
def test_a_public_registry_leads_nowhere_inward(target, origin, allowed):
    settings = Settings(insecure_registries=("insecure.io",))
    url, base = hosts.parse_url(target), Url("https", origin, 443, "/")
    if allowed:
        hosts.check_followed(url, base, settings, "the redirect to")
        return
    with pytest.raises(Error, match="refused"):
        hosts.check_followed(url, base, settings, "the redirect to")


def test_signatures_in_queries_are_not_shown():
    assert hosts.url_text(hosts.parse_url("https://a.io/x?sig=1"), query=False) == "https://a.io/x"
