import base64

import pytest

from sidecar.core.http import Problem, Request
from sidecar.core.identity import AMBIGUOUS, MALFORMED, Source


def credential_of(sources, request):
    """The first credential in the sources, in their order, as the gateway reads them."""
    return next((value for source in sources if (value := source.read(source, request)) is not None), None)


HEADER, BEARER, BASIC = Source("header", "X-Api-Key"), Source("bearer"), Source("basic")
QUERY = Source("query", "api_key")


def asked(*headers: tuple[bytes, bytes], query: str = "") -> Request:
    request = Request("GET", 1, list(headers))
    names = [name.lower() for name, _ in headers]
    request.fields = {name.lower(): value for name, value in reversed(headers)}
    request.repeated = frozenset(name for name in names if names.count(name) > 1)
    request.query = query
    return request


def basic(text: bytes) -> tuple[bytes, bytes]:
    return b"Authorization", b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (asked((b"x-api-key", b"s3cret")), b"s3cret"),
        (asked((b"AUTHORIZATION", b"bEARER s3cret")), b"s3cret"),
        (asked((b"Authorization", b"Bearer   s3cret ")), b"s3cret"),
        (asked(basic(b"user:s3cret")), b"s3cret"),
        (asked(basic(b"s3cret:")), b"s3cret"),
        (asked(basic(b"user:s3:cret")), b"s3:cret"),
        (asked(query="a=1&api_key=s3cret&b=2"), b"s3cret"),
        (asked(query="api%5Fkey=s%33cret"), b"s3cret"),
        (asked(query="api_key=a+b=="), b"a+b=="),
        (asked((b"X-Api-Key", b"first"), (b"Authorization", b"Bearer second")), b"first"),
    ],
)
def test_a_credential_is_found_in_its_source(request_, found):
    assert credential_of((HEADER, BEARER, BASIC, QUERY), request_) == found


@pytest.mark.parametrize(
    "request_",
    [
        asked(),
        asked((b"X-Api-Key", b"")),
        asked((b"Authorization", b"Bearer")),
        asked((b"Authorization", b"Bearer  ")),
        asked((b"Authorization", b"Bearers3cret")),
        asked((b"Authorization", b"Digest username=x")),
        asked(basic(b":")),
        asked(query="api_key="),
        asked(query="api_key"),
        asked(query="xapi_key=s3cret&api_keys=s3cret"),
    ],
)
def test_where_there_is_no_credential_none_is_found(request_):
    assert credential_of((HEADER, BEARER, BASIC, QUERY), request_) is None


# Fails if `repeated` is not asked, or asked only where the first value is not empty.
@pytest.mark.parametrize(
    "request_",
    [
        asked((b"X-Api-Key", b"one"), (b"x-api-key", b"two")),
        asked((b"X-Api-Key", b""), (b"x-api-key", b"two")),
        asked((b"Authorization", b"Bearer a"), (b"Authorization", b"Bearer a")),
        asked(query="api_key=one&api_key=two"),
        asked(query="api_key=one&api%5fkey=two"),
    ],
)
def test_a_credential_that_came_twice_is_refused(request_):
    assert credential_of((HEADER, BEARER, BASIC, QUERY), request_) is AMBIGUOUS
    assert AMBIGUOUS.status == 400


@pytest.mark.parametrize("value", [b"Basic !!!", b"Basic QQ", b"Basic " + base64.b64encode(b"no colon")])
def test_basic_credentials_that_are_none_are_refused(value):
    found = credential_of((BASIC, HEADER), asked((b"Authorization", value), (b"X-Api-Key", b"s3cret")))
    assert found is MALFORMED
    assert isinstance(found, Problem)


def test_only_the_sources_of_the_route_are_read():
    assert credential_of((BEARER,), asked((b"X-Api-Key", b"s3cret"), query="api_key=s3cret")) is None


@pytest.mark.parametrize(("kind", "name"), [("cookie", "x"), ("header", ""), ("query", "")])
def test_a_source_that_cannot_be_read_is_not_made(kind, name):
    with pytest.raises(ValueError, match="a credential"):
        Source(kind, name)


def test_a_source_shows_its_place():
    assert repr(HEADER) == "Source('header', 'X-Api-Key')"


def test_each_place_is_a_part_of_a_sentence():
    assert [source.place for source in (HEADER, BEARER, BASIC, QUERY)] == [
        "in the header X-Api-Key",
        "in the header Authorization, after the word Bearer",
        "as the password of Basic in the header Authorization",
        "in the query's parameter api_key",
    ]
