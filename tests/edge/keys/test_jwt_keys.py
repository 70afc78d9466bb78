"""Mirrors sidecar/edge/keys/jwt_keys.py."""

import asyncio
import base64
import json
import logging

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from sidecar.core.errors import PolicyError, StoreError
from sidecar.core.identity import Identity
from sidecar.edge.keys.jwt_keys import JwtKeys, JwtRules, read_jwks
from sidecar.testing import HandClock

NOW_S = 1_800_000_000
NOW_US = NOW_S * 1_000_000
SECOND = 1_000_000
URL = "https://issuer.example/jwks"
SECRET = b"a secret of at least sixty-four bytes, for HMAC with SHA-512 too, so there!"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: str, key, **more) -> dict:
    public = key if isinstance(key, bytes) else key.public_key()
    return {**json.loads(get_default_algorithms()[algorithm].to_jwk(public)), **more}


def jwks(*keys: dict) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token(key=RSA, algorithm: str = "RS256", headers: dict | None = None, **claims) -> bytes:
    body = {"sub": "app-1", "customer": "cust-1", "plan": "pro", "exp": NOW_S + 60, **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, key, algorithm, headers).encode()


def unsigned(header: dict, claims: dict, signature: bytes = b"") -> bytes:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def keys_of(rules: JwtRules | None = None, clock: HandClock | None = None) -> JwtKeys:
    known = jwks(jwk("RS256", RSA, kid="r"), jwk("ES256", EC, kid="e"), jwk("EdDSA", ED, kid="d"))
    return JwtKeys(rules or JwtRules(("RS256", "ES256", "EdDSA")), clock or HandClock(NOW_US), keys=known)


def found(keys: JwtKeys, one: bytes):
    answers = []
    keys.find_token(one, answers.append)
    assert len(answers) == 1
    return answers[0]


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
def test_a_signed_token_yields_its_identity(key, algorithm):
    identity = found(keys_of(), token(key, algorithm))
    assert isinstance(identity, Identity)
    assert (identity.subject, identity.customer, identity.plan) == ("app-1", "cust-1", "pro")
    assert identity.key_id == "jwt:cust-1:app-1"


def test_claims_are_read_by_the_names_of_the_rules():
    rules = JwtRules(
        ("RS256",), subject_claim="azp", customer_claim="https://x.example/org", plan_claim="tier", plan="free"
    )
    identity = found(keys_of(rules), token(azp="app-9", **{"https://x.example/org": "org-9"}))
    assert (identity.subject, identity.customer, identity.plan) == ("app-9", "org-9", "free")


PUBLIC_PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
GOOD = {"sub": "app-1", "customer": "cust-1", "plan": "pro", "exp": NOW_S + 60}


def hmac_under(key: bytes) -> bytes:
    """HS256 under a public key: PyJWT itself refuses to sign so, as an attacker would not."""
    import hashlib  # noqa: PLC0415 - the attacker's tools
    import hmac  # noqa: PLC0415

    head = unsigned({"alg": "HS256", "typ": "JWT"}, GOOD).rpartition(b".")[0]
    return head + b"." + base64.urlsafe_b64encode(hmac.digest(key, head, hashlib.sha256)).rstrip(b"=")


# Fails if the header's alg is taken, or the allow-list holds what does not fit the key.
@pytest.mark.parametrize(
    "bad",
    [
        unsigned({"alg": "none"}, GOOD),
        unsigned({"alg": "None"}, GOOD),
        hmac_under(PUBLIC_PEM),
        hmac_under(b""),
        token(OTHER_RSA),
        token(OTHER_RSA, headers={"kid": "r"}),
        token(RSA, headers={"kid": "e"}),
        token(RSA, headers={"kid": "unknown"}),
        token(RSA, "RS512"),
        token(RSA, "PS256"),
        token()[:-2],
        b"",
        b"a.b.c",
        b"..",
        b"\xff\xfe",
        token().replace(b".", b"..", 1),
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_token_that_is_not_signed_by_a_known_key_and_an_allowed_algorithm_is_none(bad):
    assert found(keys_of(), bad) is None


# Fails if `_FITS` allows HMAC with an RSA key: the public key would be a secret that all know.
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_hmac_is_never_verified_under_a_public_key_even_where_both_are_allowed():
    rules = JwtRules(("RS256", "HS256"))
    keys = JwtKeys(rules, HandClock(NOW_US), keys=jwks(jwk("RS256", RSA), jwk("HS256", SECRET)))
    assert found(keys, hmac_under(PUBLIC_PEM)) is None
    assert found(keys, token(SECRET, "HS256")) is not None


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None}, {"customer": None}, {"plan": None}, {"exp": None}, {"sub": ""}, {"customer": 7},
        {"plan": "a\nb"},
        {"customer": "x" * 257}, {"exp": "soon"}, {"exp": True}, {"exp": 1e300}, {"exp": float("nan")}, {"nbf": "now"},
        {"exp": NOW_S - 30}, {"nbf": NOW_S + 31},
    ],
)  # fmt: skip
def test_a_token_that_names_nobody_or_does_not_hold_now_is_none(claims):
    assert found(keys_of(), token(**claims)) is None


# Fails if the leeway is left out on either side.
def test_the_leeway_forgives_clocks_that_differ():
    assert found(keys_of(), token(exp=NOW_S - 29, nbf=NOW_S + 30)) is not None


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"aud": "api", "iss": "me"}, True), ({"aud": ["x", "api"], "iss": "me"}, True),
        ({"aud": "other", "iss": "me"}, False),
        ({"aud": "api", "iss": "other"}, False), ({"aud": "api"}, False), ({"iss": "me"}, False), ({}, False),
    ],
)  # fmt: skip
def test_audience_and_issuer_are_required_where_they_are_set(claims, good):
    rules = JwtRules(("RS256",), audience="api", issuer="me")
    assert (found(keys_of(rules), token(**claims)) is not None) is good


def test_a_token_yields_one_identity_until_it_ends():
    clock = HandClock(NOW_US)
    keys = keys_of(clock=clock)
    one = token(exp=NOW_S + 60)
    before = found(keys, one)
    clock.turn((60 + 30) * SECOND - 1)
    assert found(keys, one) is before
    clock.turn(1)
    assert found(keys, one) is None


# litellm #12685: bounded caches. Fails if good and bad tokens share one table.
def test_a_flood_of_bad_tokens_pushes_out_no_good_one(monkeypatch):
    monkeypatch.setattr("sidecar.edge.keys.jwt_keys._BAD", 10)
    keys = keys_of()
    before = found(keys, token())
    for number in range(50):
        assert found(keys, b"bad.%d.token" % number) is None
    assert found(keys, token()) is before
    assert len(keys._bad) == 10  # the bound itself is what is tested


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": []}', b'{"keys": [{"kty": "RSA", "n": "x"}]}',
     jwks(jwk("ES256", EC)), jwks(jwk("RS256", RSA, use="enc")), jwks(jwk("RS256", RSA, alg="RS512"))],
)  # fmt: skip
def test_a_set_without_a_usable_key_is_refused(text):
    with pytest.raises(PolicyError, match=r"^jwks.json: keys: "):
        read_jwks(text, "jwks.json", ("RS256",))


@pytest.mark.parametrize("algorithms", [(), ("none",), ("RS256", "none"), ("rs256",)])
def test_only_algorithms_that_sign_are_allowed(algorithms):
    with pytest.raises(ValueError, match="algorithms: use some of"):
        JwtRules(algorithms)


# --- Fetched keys


class Issuer:
    def __init__(self, *keys: dict) -> None:
        self.keys = keys
        self.fetched = 0
        self.away = False

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.fetched += 1
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError
        return jwks(*self.keys)


async def waited(keys: JwtKeys, one: bytes):
    answer = asyncio.get_running_loop().create_future()
    keys.find_token(one, answer.set_result)
    return await asyncio.wait_for(answer, 5)


def fetched(issuer: Issuer, clock: HandClock) -> JwtKeys:
    return JwtKeys(JwtRules(("RS256",)), clock, url=URL, fetch=issuer.fetch)


async def test_keys_are_fetched_once_for_a_herd():
    issuer, clock = Issuer(jwk("RS256", RSA, kid="1")), HandClock(NOW_US)
    keys = fetched(issuer, clock)
    answers = await asyncio.gather(*(waited(keys, token(jti=str(number))) for number in range(50)))
    assert all(isinstance(answer, Identity) for answer in answers)
    assert issuer.fetched == 1


async def test_a_new_key_of_the_issuer_is_fetched_when_a_token_names_it():
    issuer, clock = Issuer(jwk("RS256", RSA, kid="1")), HandClock(NOW_US)
    keys = fetched(issuer, clock)
    assert await waited(keys, token(headers={"kid": "1"})) is not None
    issuer.keys = (jwk("RS256", OTHER_RSA, kid="2"),)
    clock.turn(11 * SECOND)
    assert await waited(keys, token(OTHER_RSA, headers={"kid": "2"})) is not None
    assert issuer.fetched == 2


# Fails without _REFETCH_US: made-up key ids would be a flood on the issuer.
async def test_unknown_key_ids_do_not_make_us_flood_the_issuer():
    issuer, clock = Issuer(jwk("RS256", RSA, kid="1")), HandClock(NOW_US)
    keys = fetched(issuer, clock)
    for number in range(100):
        assert await waited(keys, token(OTHER_RSA, headers={"kid": f"x{number}"})) is None
    assert issuer.fetched == 1


async def test_an_issuer_that_is_away_does_not_take_the_known_keys_with_it():
    issuer, clock = Issuer(jwk("RS256", RSA, kid="1")), HandClock(NOW_US)
    keys = fetched(issuer, clock)
    await waited(keys, token())
    issuer.away = True
    clock.turn(3600 * SECOND)
    assert isinstance(await waited(keys, token(exp=NOW_S + 7200)), Identity)
    await keys.close()


async def test_without_any_keys_the_answer_is_an_error_and_not_a_refusal():
    issuer, clock = Issuer(), HandClock(NOW_US)
    issuer.away = True
    assert isinstance(await waited(fetched(issuer, clock), token()), StoreError)


# Fails if a verdict is kept until the token's own end.
async def test_a_withdrawn_key_ends_its_tokens():
    issuer, clock = Issuer(jwk("RS256", RSA, kid="1")), HandClock(NOW_US)
    keys = fetched(issuer, clock)
    one = token(exp=NOW_S + 86_400, headers={"kid": "1"})
    assert await waited(keys, one) is not None
    issuer.keys = (jwk("RS256", OTHER_RSA, kid="2"),)
    clock.turn(600 * SECOND)
    await waited(keys, token(OTHER_RSA, headers={"kid": "2"}, exp=NOW_S + 86_400))
    assert await waited(keys, one) is None


async def test_no_error_repeats_a_token_a_claim_or_a_key(caplog):
    caplog.set_level(logging.DEBUG)
    canary = "canary0canary0canary"
    told = []
    for text in (
        f'{{"keys": [{{"kty": "{canary}", "k": 1}}, {{"kty": "oct", "k": 5, "x": "{canary}"}}]}}',
        f"[{canary}",
    ):
        with pytest.raises(PolicyError) as caught:
            read_jwks(text.encode(), "jwks.json", ("HS256",))
        told += [caught.value, caught.value.__cause__]
    keys = keys_of()
    told += [found(keys, one) for one in (canary.encode(), token(customer=[canary]), token(sub=f"{canary}\n"))]
    assert told[-3:] == [None] * 3
    assert canary not in " ".join(map(repr, [*told, keys])) + caplog.text
