"""Mirrors sidecar/core/identity.py."""

import base64
import hashlib
import hmac
import random
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.http import Problem, Request
from sidecar.core.identity import (
    AMBIGUOUS,
    MALFORMED,
    Identity,
    KeyRecord,
    Source,
    digest,
    has_valid_checksum,
    make_key,
    read_record,
    stored,
)


def credential_of(sources, request):
    """The first credential in the sources, in their order, as the gateway reads them."""
    return next((value for source in sources if (value := source.read(source, request)) is not None), None)


BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
RAW = {"id": "k_1", "hash": "sha256:" + "0" * 64, "customer": "cust-1", "subject": "app-1", "plan": "free"}
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


# --- Digests


def test_a_digest_is_the_sha256_of_the_credential():
    assert digest(b"secret") == hashlib.sha256(b"secret").digest()


# Fails if the key block is not hashed down when it is longer than 64 bytes.
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=200))
@example(b"credential", b"p" * 64)
@example(b"credential", b"p" * 65)
def test_a_peppered_digest_is_the_hmac_of_the_credential(credential, pepper):
    assert digest(credential, pepper) == hmac.digest(pepper, credential, "sha256")


def test_the_stored_form_names_its_hash():
    assert stored(digest(b"x")) == "sha256:" + hashlib.sha256(b"x").hexdigest()


# --- Made keys


@given(st.binary(min_size=20, max_size=20))
def test_a_made_key_looks_made(raw):
    key = make_key(raw)
    assert key.startswith("msk_")
    assert len(key) == 4 + 27 + 6
    assert has_valid_checksum(key.encode()) is True


def test_keys_differ_wherever_their_random_bits_do():
    raw = bytes(20)
    flipped = [bytes(byte ^ (bit == position) << bit % 8 for position, byte in enumerate(raw)) for bit in range(20)]
    assert len({make_key(one) for one in [raw, *flipped]}) == 21


def test_a_test_key_says_so_and_looks_made():
    assert has_valid_checksum(make_key(bytes(20), "msk_test_").encode()) is True


# Fails if the checksum leaves the prefix out.
def test_a_key_with_its_test_mark_taken_off_is_refused():
    assert has_valid_checksum(make_key(bytes(20), "msk_test_").replace("test_", "").encode()) is False


# Fails if has_valid_checksum compares the last 5 characters only.
@given(st.binary(min_size=20, max_size=20))
def test_every_single_character_typo_is_refused(raw):
    key = make_key(raw)
    for position in range(4, len(key)):
        for wrong in BASE62:
            typo = key[:position] + wrong + key[position + 1 :]
            assert has_valid_checksum(typo.encode()) is (typo == key)


@given(st.binary(min_size=20, max_size=20))
def test_every_transposition_of_neighbours_is_refused(raw):
    key = make_key(raw)
    for position in range(4, len(key) - 1):
        twisted = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
        assert has_valid_checksum(twisted.encode()) is (twisted == key)


def test_sampled_transpositions_at_a_distance_are_refused():
    dice = random.Random(7)
    for _ in range(2_000):
        key = list(make_key(dice.randbytes(20)))
        one, other = dice.sample(range(4, len(key)), 2)
        twisted = key.copy()
        twisted[one], twisted[other] = key[other], key[one]
        assert has_valid_checksum("".join(twisted).encode()) is (twisted == key)


# Fails if the length is not looked at.
@pytest.mark.parametrize(
    "wrong", [b"msk_", b"msk_short", b"msk_" + b"0" * 32, b"msk_" + b"0" * 34, b"msk_" + b"\xff" * 33]
)
def test_what_has_our_prefix_and_not_our_shape_is_refused(wrong):
    assert has_valid_checksum(wrong) is False


@pytest.mark.parametrize("foreign", [b"", b"sk-live-1", b"MSK_0", b"0f3c2b"])
def test_a_foreign_key_is_known_by_its_hash_alone(foreign):
    assert has_valid_checksum(foreign) is None


def test_another_prefix_is_as_good():
    key = make_key(bytes(range(20)), "acme_").encode()
    assert has_valid_checksum(key, b"acme_") is True
    assert has_valid_checksum(key) is None


@pytest.mark.parametrize(
    ("raw", "prefix"), [(b"short", "msk_"), (bytes(20), "msk"), (bytes(20), "mük_"), (bytes(20), "a b_")]
)
def test_a_key_is_not_made_of_too_little_or_with_an_odd_prefix(raw, prefix):
    with pytest.raises(ValueError, match="key"):
        make_key(raw, prefix)


# --- Where a credential is looked for


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


# --- Registered keys


def test_a_record_yields_its_identity():
    record, faults = read_record(
        {**RAW, "zone": "Europe/Berlin", "anchor": "2026-01-31", "expires": "2026-12-31T23:59:59.000001Z", "test": True}
    )
    assert faults == []
    assert record is not None
    identity = record.identity()
    assert isinstance(identity, Identity)
    assert (identity.key_id, identity.subject, identity.customer, identity.plan) == ("k_1", "app-1", "cust-1", "free")
    assert identity.anchor_us == 1_769_814_000_000_000  # 2026-01-30T23:00:00Z, midnight in Berlin
    assert identity.expires_us == 1_798_761_599_000_001
    assert identity.test


def test_a_revoked_record_yields_no_identity():
    record, _ = read_record({**RAW, "status": "revoked"})
    assert record is not None
    assert record.identity() is None


def test_an_identity_says_since_when_it_is_on_its_plan():
    since = "2026-11-21T01:03:26Z"
    identity = KeyRecord(**RAW, plan_since=since).identity()
    assert identity is not None
    assert identity.plan_since == since
    assert KeyRecord(**RAW).identity().plan_since == ""


def test_a_record_survives_its_stored_form():
    record = KeyRecord(**RAW, zone="Asia/Tokyo", expires="2026-01-01T00:00:00Z")
    assert read_record(record.stored()) == (record, [])
    assert set(record.stored()) == {*RAW, "zone", "expires"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""), ("id", 7), ("id", "a\nb"), ("id", " a"), ("id", "x" * 257), ("customer", None), ("customer", True),
        ("hash", "sha256:short"), ("hash", "0" * 64), ("hash", "sha256:" + "A" * 64),
        ("hash", "sha256:" + "0" * 64 + "\n"), ("status", "actve"), ("status", ["active"]),
        ("zone", "Mars/Base"), ("zone", "../etc/passwd"), ("zone", ""), ("zone", 1),
        ("anchor", "2026-02-30"), ("anchor", "20260201"), ("anchor", 20260201),
        ("expires", "2026-12-31"), ("expires", "2026-12-31T00:00:00"), ("expires", "soon"), ("expires", 5),
        ("plan_since", "2026-12-31"), ("plan_since", ""), ("plan_since", 5),
        ("test", "yes"), ("test", 1), ("colour", "red"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_record_is_named_by_its_field(field, value):
    record, faults = read_record({**RAW, field: value})
    assert record is None
    assert [name for name, _ in faults] == [field]


def test_all_that_is_wrong_is_said_at_once():
    assert {name for name, _ in read_record({"plan": 7, "odd": 1})[1]} == {
        "id",
        "hash",
        "customer",
        "subject",
        "plan",
        "odd",
    }


# Fails if _is_name does not look at the checksum.
def test_a_credential_in_the_place_of_an_id_is_refused_unseen():
    key = make_key(bytes(20))
    record, faults = read_record({**RAW, "id": key})
    assert record is None
    assert [name for name, _ in faults] == ["id"]
    assert key not in str(faults + [(what,) for _, what in read_record({**RAW, "hash": key, key: key})[1]])


def test_records_and_sources_show_neither_hash_nor_credential():
    record = KeyRecord(**RAW)
    assert "0000" not in repr(record) + str(record)
    assert repr(HEADER) == "Source('header', 'X-Api-Key')"


def test_identities_that_say_the_same_are_told_from_those_that_do_not():
    one = Identity("k", "s", "c", "p")
    assert one.same_as(Identity("k", "s", "c", "p"))
    assert not one.same_as(Identity("k", "s", "c", "p", expires_us=1))
    assert not one.same_as(Identity("k", "s", "c", "p", plan_since="2026-11-21T01:03:26Z"))
    assert one != Identity("k", "s", "c", "p")
