"""Mirrors sidecar/config/addresses.py."""

import pytest

from sidecar.config.addresses import (
    Address,
    RedisEndpoint,
    Url,
    parse_address,
    parse_addresses,
    parse_host,
    parse_redis_url,
    parse_url,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        (":8080", Address("", 8080)),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("[::]:8080", Address("::", 8080)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["8080", 8080, "host:", "host:http", "host:65536", "::1:80", "host:-1", "host:٣"])
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:8080"):
        parse_address(text)


def test_an_address_is_written_as_it_was_read():
    written = ["a:1", "[::1]:2", ":3", "[::]:4"]
    assert [str(parse_address(text)) for text in written] == written


@pytest.mark.parametrize(
    ("text", "scope", "url"),
    [
        ("127.0.0.1:1", "", "http://127.0.0.1:1"),
        ("[::1]:1", "", "http://[::1]:1"),
        ("[2001:db8::7]:1", "", "http://[2001:db8::7]:1"),
        ("0.0.0.0:1", "all IPv4 addresses", "http://127.0.0.1:1"),
        ("[::]:1", "all IPv6 addresses", "http://[::1]:1"),
        (":1", "all addresses", "http://localhost:1"),
    ],
)
def test_every_address_has_a_url_that_can_be_opened(text, scope, url):
    # Mutation: the host is not in brackets.
    address = parse_address(text)
    assert (address.scope, address.url("http")) == (scope, url)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a:1", "a:1", True),
        ("a:1", "a:2", False),
        ("a:0", "a:0", False),
        (":1", "0.0.0.0:1", True),
        (":1", "[::1]:1", True),
        (":1", "localhost:1", True),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("[::]:1", "[fe80::1%eth0]:1", True),
        ("0.0.0.0:1", "[::]:1", False),
        ("0.0.0.0:1", "[::1]:1", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:1", "[::1]:1", False),
    ],
)
def test_addresses_overlap_where_one_connection_could_reach_both(one, other, overlap):
    # Mutation: the families of wildcards are not compared.
    assert parse_address(one).overlaps(parse_address(other)) is overlap
    assert parse_address(other).overlaps(parse_address(one)) is overlap


def test_several_addresses_are_a_list_or_a_text_with_commas():
    assert parse_addresses(":1, [::1]:2") == (Address("", 1), Address("::1", 2))
    assert parse_addresses([":1"]) == [":1"]
    for wrong in (8080, "a:1,", "a:1,b"):
        with pytest.raises(ValueError, match=r"127\.0\.0\.1:8080"):
            parse_addresses(wrong)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://api:9000", Url(tls=False, host="api", port=9000)),
        ("https://api", Url(tls=True, host="api", port=443)),
        ("http://[::1]/", Url(tls=False, host="::1", port=80)),
        ("https://api/v1/", Url(tls=True, host="api", port=443, base="/v1")),
        ("unix:/run/api.sock", Url(tls=False, host="", port=0, socket="/run/api.sock")),
        ("unix:///run/api.sock", Url(tls=False, host="", port=0, socket="/run/api.sock")),
    ],
)
def test_an_upstream_is_an_address_with_a_scheme(text, url):
    assert parse_url(text) == url
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api:9000", "write http://host:port"),
        ("ftp://api", "write http://host:port"),
        ("http://", "write http://host:port"),
        ("http://api/v1/../x", "not in normal form: write '/x'"),
        ("http://api/v1//x", "not in normal form: write '/v1/x'"),
        ("http://api/a%2Fb", "cannot be sent: an encoded slash"),
        ("http://me:secret@api", "more than an address"),
        ("http://api?x=1", "more than an address"),
        ("http://api:port", "is not an address"),
        ("unix:api.sock", "the whole path of a socket"),
        ("unix:/" + 107 * "a", "of at most 107 bytes"),
    ],
)
def test_what_is_more_or_less_than_an_upstream_is_refused(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Api.Example.com", "api.example.com"),
        ("api:8443", "api:8443"),
        ("[::1]:1", "[::1]:1"),
        ("upstream", "upstream"),
    ],
)
def test_a_host_is_a_name_with_an_optional_port(text, host):
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", "https://api", "api/v1", "a b", "me@api", "api:port"])
def test_any_other_host_is_refused_with_what_would_be_right(text):
    with pytest.raises(ValueError, match="`preserve`, `upstream` or a host name"):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("redis://h", RedisEndpoint("single", tls=False, hosts=(Address("h", 6379),))),
        ("redis://:p%40ss@h:1/2", RedisEndpoint("single", False, (Address("h", 1),), 2, None, "p@ss")),
        ("rediss://me:pw@[::1]:1", RedisEndpoint("single", True, (Address("::1", 1),), 0, "me", "pw")),
        (
            "redis+sentinel://a,b:2/main/3",
            RedisEndpoint("sentinel", False, (Address("a", 26379), Address("b", 2)), 3, service="main"),
        ),
        ("rediss+cluster://a:1,b:2", RedisEndpoint("cluster", True, (Address("a", 1), Address("b", 2)))),
    ],
)
def test_a_redis_url_says_its_mode_in_the_scheme(text, endpoint):
    assert parse_redis_url(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "http://:hunter2@h",
        "redis://:hunter2@h/x",
        "redis://:hunter2@a,b",
        "redis+sentinel://:hunter2@a",
        "redis+cluster://:hunter2@a/1",
        "redis://:hunter2@",
        "redis://:hunter2@h:port",
    ],
)
def test_a_wrong_redis_url_is_refused_without_repeating_its_password(text):
    with pytest.raises(ValueError, match=r"is|names|ends") as caught:
        parse_redis_url(text)
    assert "hunter2" not in str(caught.value)
