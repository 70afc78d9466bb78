import pytest

from sidecar.edge.http1.address import Address, HeadSettings, apply_settings


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://h", "http://h?q", "http://", "http://h:port"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"http|port|Port"):
        Address(url)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", ("h", 80, False, b"h", "")),
        ("https://h/", ("h", 443, True, b"h", "")),
        ("https://h:443/v1", ("h", 443, True, b"h", "/v1")),
        ("https://h:80/v1/", ("h", 80, True, b"h:80", "/v1")),
        ("http://[::1]:9000", ("::1", 9000, False, b"[::1]:9000", "")),
    ],
)
def test_an_address_is_a_host_and_a_port_with_or_without_tls_and_a_base_path(url, parts):
    address = Address(url)
    assert (address.host, address.port, address.tls, address.authority, address.base) == parts


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        (HeadSettings(), [b"", b""]),
        (HeadSettings("upstream"), [b"a", b"b:81"]),
        (HeadSettings("api.example"), [b"api.example"] * 2),
    ],
)
def test_each_address_gets_the_host_that_the_settings_say(settings, hosts):
    addresses = [Address("http://a"), Address("http://b:81")]
    apply_settings(addresses, settings)
    assert [address.options.host for address in addresses] == hosts
    assert {address.options.authority for address in addresses} == {b"a"}


def test_a_unix_socket_has_a_path_and_is_asked_as_localhost():
    address = Address("unix:/run/api.sock")
    assert (address.socket, address.host, address.tls, address.is_name) == ("/run/api.sock", "", False, False)
    assert address.host_field(HeadSettings("upstream")) == b"localhost"


def test_an_address_of_a_name_has_the_settings_of_the_name():
    # Fails if it keeps settings of its own: those that are renewed would not reach it.
    name = Address("https://api.example/v1")
    resolved = Address(name.url, "10.0.0.1", name)
    assert (name.is_name, resolved.is_name, resolved.ip, resolved.port) == (True, False, "10.0.0.1", 443)
    apply_settings([name], HeadSettings("upstream"))
    assert resolved.origin.options.host == b"api.example"


# Fails if each address has options of its own: a head would be rendered anew for each that it goes to in turn.
def test_addresses_of_which_it_is_the_same_share_their_prepared_heads():
    addresses = [Address(url) for url in ("http://a", "http://b", "http://c/v1")]
    apply_settings(addresses, HeadSettings())
    one, other, based = [address.options for address in addresses]
    assert one is other is not based
    assert based.base == "/v1"
