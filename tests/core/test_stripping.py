"""Mirrors sidecar/core/stripping.py."""

import base64

import pytest

from sidecar.core.http.request import HeadLimits, Request, read_request
from sidecar.core.identity import Source, make_key
from sidecar.core.stripping import strip_keys

HEADER, BEARER, BASIC, QUERY = (
    Source("header", "X-Api-Key"),
    Source("bearer"),
    Source("basic"),
    Source("query", "api_key"),
)
MADE = make_key(b"a" * 20)
OTHER = make_key(b"b" * 20)
MISTYPED = MADE[:-1] + ("A" if MADE[-1] != "A" else "B")


def asked(*fields, target="/a"):
    pairs = [(b"Host", b"h"), *(tuple(part.encode() for part in field.split(": ", 1)) for field in fields)]
    found = read_request(("GET", target.encode(), 1), pairs, HeadLimits())
    assert isinstance(found, Request), found
    return found


def basic(user, password=""):
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def stripped(*fields, sources=(HEADER, BEARER), registered=(), target="/a"):
    request = asked(*fields, target=target)
    source = next((each for each in sources if each.read(each, request) is not None), None)
    return strip_keys(request, source, sources, {key.encode() for key in registered}.__contains__)


def dropped(*fields, **more):
    return {name.decode() for name in stripped(*fields, **more).dropped}


# bugs 05. Fails if the source alone is taken out. A foreign key, known by its hash, is the same text again.
@pytest.mark.parametrize("key", [MADE, "s3cret", "a"])
@pytest.mark.parametrize(
    "second",
    [
        "Authorization: Bearer {}",
        "authorization: bEARER  {}",
        "Authorization: {}",
        "Authorization: Token {}",
        "X-Auth: {}",
        "X-Auth: key  {}",
    ],
)
@pytest.mark.parametrize("sources", [(HEADER, BEARER), (HEADER,)])
def test_the_same_key_in_a_second_header_goes_too(key, second, sources):
    name = second.partition(":")[0].lower()
    assert dropped(f"X-Api-Key: {key}", "X-Other: 1", second.format(key), sources=sources) == {"x-api-key", name}


@pytest.mark.parametrize("key", [MADE, "s3cret"])
@pytest.mark.parametrize("second", [("{}", ""), ("user", "{}"), ("{}", "x")])
def test_the_same_key_in_basic_credentials_goes_too(key, second):
    found = dropped(f"X-Api-Key: {key}", basic(*[part.format(key) for part in second]), sources=(HEADER,))
    assert found == {"x-api-key", "authorization"}


def test_the_key_of_basic_credentials_in_clear_goes_too():
    # Fails if a copy is looked for where the credential stands more than once: in base64 it does not.
    assert dropped(basic("", "s3cret"), "X-Api-Key: s3cret", sources=(BASIC,)) == {"authorization", "x-api-key"}


@pytest.mark.parametrize("key", [MADE, "s3cret"])
def test_the_same_key_in_the_query_goes_too(key):
    target = f"/a?x=%20&api_key={key}&y&k%65y={key}&s=%73{key[1:]}"
    assert stripped(f"X-Api-Key: {key}", target=target).query.split("&")[:2] == ["x=%20", "y"]
    assert key not in stripped(f"X-Api-Key: {key}", target=target).query
    found = stripped(f"X-Api-Key: {key}", target=f"/a?api_key={key}&b=1", sources=(QUERY, HEADER))
    assert (found.dropped, found.query) == ({b"x-api-key"}, "b=1")


def test_a_key_in_a_cookie_goes_and_the_other_cookies_stay():
    for key in (MADE, "s3cret"):
        found = stripped(f"X-Api-Key: {key}", f"Cookie: session=1; key={key}; theme=dark")
        assert found.dropped == {b"x-api-key", b"cookie"}
        assert found.fields == [(b"Cookie", b"session=1; theme=dark")]
    assert stripped(f"X-Api-Key: {MADE}", f"Cookie: key={MADE}").fields == []
    assert stripped(f"X-Api-Key: {MADE}", "Cookie: session=1") == ({b"x-api-key"}, [], "")


# Fails if what looks like ours is looked for in the sources only, or by its beginning only.
def test_another_key_that_we_made_goes_wherever_it_stands():
    assert dropped("X-Api-Key: s3cret", f"Authorization: Bearer {OTHER}") == {"x-api-key", "authorization"}
    assert dropped(f"X-Api-Key: {MADE}", f"Referer: https://h/?key={OTHER}&b") == {"x-api-key", "referer"}
    assert dropped(f"X-Auth: {OTHER}", sources=()) == {"x-auth"}
    assert dropped(basic(OTHER), sources=(HEADER,)) == {"authorization"}
    assert stripped(target=f"/a?b=1&key={OTHER}").query == "b=1"
    assert dropped("X-Api-Key: s3cret", f"X-Note: {MISTYPED} msk_ msk_x") == {"x-api-key"}


# Fails if every source's header is taken out: a bearer token meant for the upstream must pass (docs/keys.md).
def test_a_token_of_another_kind_passes():
    # Fails if a short key is found inside another word.
    for second in ("Authorization: Bearer theirs", "Authorization: Digest username=x", basic("u", "p"), "X-B: s3cret2"):
        assert dropped("X-Api-Key: s3cret", second) == {"x-api-key"}
    assert dropped("Authorization: Bearer s3cret", "X-Api-Key: ", sources=(HEADER, BEARER)) == {"authorization"}
    assert stripped("X-Api-Key: s3cret", target="/a?token=theirs&b").query == "token=theirs&b"


FOREIGN = "foreign-key-77"
IN_OTHER_TEXT = {
    "Cookie: {}": "cookie",
    'Cookie: a="{}"': "cookie",
    "Cookie: {}=1": "cookie",
    "Cookie: a={:%}": "cookie",
    "Cookie: Authorization=Bearer%20{}": "cookie",
    "Authorization: Bearer\t{}": "authorization",
    "Authorization: Bearer {}, Basic x": "authorization",
    'Authorization: Token token="{}"': "authorization",
    "Proxy-Authorization: Bearer {}": "proxy-authorization",
    "Referer: https://h/?api_key={}&b": "referer",
    "Referer: https://h/?api_key={:%}&b": "referer",
    "Sec-WebSocket-Protocol: openai-insecure-api-key.{}": "sec-websocket-protocol",
    "X-Auth: a{}z": "x-auth",
}


class Spelled(str):
    """A key that formats as it is, or with `:%` with some of its bytes percent-encoded."""

    __slots__ = ()

    def __format__(self, how):
        return self.replace("_", "%5F").replace("o", "%6f") if how else str(self)


# Fails if a name, a quoted text or a percent-encoded one is not searched, or what follows a tab is no credential.
@pytest.mark.parametrize("key", [MADE, FOREIGN])
@pytest.mark.parametrize("where", IN_OTHER_TEXT)
def test_a_field_goes_that_holds_the_key_anywhere(key, where):
    assert dropped(f"X-Api-Key: {key}", "X-Other: 1", where.format(Spelled(key))) == {"x-api-key", IN_OTHER_TEXT[where]}
    if key == MADE:
        assert dropped("X-Api-Key: s3cret", where.format(Spelled(key))) == {"x-api-key", IN_OTHER_TEXT[where]}


@pytest.mark.parametrize("key", [MADE, FOREIGN])
@pytest.mark.parametrize(
    "pair", ["token={}", "token={:%}", "{}", "{}=1", "a=1;api_key={}", "a=Bearer+{}", "a=Bearer%20{}"]
)
def test_a_parameter_goes_that_holds_the_key_anywhere(key, pair):
    target = f"/a?x=%20&{pair.format(Spelled(key))}&y"
    assert stripped(f"X-Api-Key: {key}", target=target).query == "x=%20&y"
    if key == MADE:
        assert stripped("X-Api-Key: s3cret", target=target).query == "x=%20&y"


# RFC 7617, and what servers take beside it. Fails if only one blank, one alphabet or whole padding is read.
@pytest.mark.parametrize("key", [MADE, FOREIGN])
@pytest.mark.parametrize("pair", ["{}:", "{}:x", "{}:xy", "u:{}", "{}", "\xff\xfe\xff:{}"])
@pytest.mark.parametrize("scheme", ["Basic ", "basic  ", "BASIC\t"])
def test_the_key_in_base64_goes_however_it_is_spelled(key, pair, scheme):
    packed = base64.b64encode(pair.format(key).encode("latin-1"))
    for text in (packed, packed.rstrip(b"="), packed.replace(b"/", b"_").replace(b"+", b"-")):
        field = f"Authorization: {scheme}{text.decode()}"
        assert dropped(f"X-Api-Key: {key}", field, sources=(HEADER,)) == {"x-api-key", "authorization"}


def test_base64_with_a_letter_too_many_is_read_up_to_it():
    field = f"Authorization: Basic {base64.b64encode(f'{FOREIGN}:x'.ljust(18).encode()).decode()}A"
    assert dropped(f"X-Api-Key: {FOREIGN}", field, sources=(HEADER,)) == {"x-api-key", "authorization"}


# Fails if the search goes on behind what looked like a key, where another begins.
def test_a_made_key_is_found_inside_what_looks_like_one():
    assert dropped("X-Api-Key: s3cret", f"X-Auth: msk_{'0' * 30}{MADE}") == {"x-api-key", "x-auth"}


def test_the_other_items_of_a_list_stay():
    protocols = f"Sec-WebSocket-Protocol: realtime, key.{FOREIGN}, beta"
    found = stripped(f"X-Api-Key: {FOREIGN}", protocols, "Cookie: a=1", f"Cookie: k={FOREIGN}; b=2", "Cookie: c=3")
    assert found.dropped == {b"x-api-key", b"sec-websocket-protocol", b"cookie"}
    # Fails if a line without a key goes with the others of its name.
    assert found.fields == [
        (b"Sec-WebSocket-Protocol", b"realtime, beta"), (b"Cookie", b"a=1"), (b"Cookie", b"b=2"), (b"Cookie", b"c=3"),
    ]  # fmt: skip


def test_a_key_that_holds_a_separator_leaves_nothing_of_its_line():
    # Fails if items are judged one by one only.
    assert stripped("X-Api-Key: foreign;key;77", "Cookie: a=foreign;key;77").fields == []


def test_a_short_key_is_found_where_it_stands_alone():
    assert dropped("X-Api-Key: s3cret", "X-A: [s3cret]", "X-B: s3cret2 as3cret", "X-C: as3cret s3cret") == {
        "x-api-key", "x-a", "x-c",
    }  # fmt: skip


# Fails if a registered key is looked for nowhere, or everywhere: that would be a look-up for each field.
def test_another_registered_key_goes_where_keys_are_looked_for():
    more = {"registered": ["theirs"]}
    assert dropped("X-Api-Key: s3cret", "Authorization: Bearer theirs", **more) == {"x-api-key", "authorization"}
    assert dropped("X-Api-Key: s3cret", "Authorization: Bearer theirs", sources=(HEADER,), **more) == {"x-api-key"}
    sources = (HEADER, QUERY)
    assert (
        stripped("X-Api-Key: s3cret", target="/a?api_key=theirs&b=theirs", sources=sources, **more).query == "b=theirs"
    )


def test_a_parameter_that_held_the_credential_goes_in_whatever_spelling_and_the_rest_stays_byte_for_byte():
    found = stripped("A: 1", target="/a?x=%20&api%5Fkey=s3cret&y&=", sources=(QUERY,))
    assert found == (frozenset(), [], "x=%20&y&=")


def test_a_head_without_credentials_stays_as_it_is():
    assert stripped("A: 1", "Cookie: a=b", target="/a?b=c") == (frozenset(), [], "b=c")
