"""Verified JWTs as credentials: signed by a known key, with an algorithm that is allowed and fits the key.

The token chooses neither the algorithm (RFC 8725 §3.1) nor the type of the key (no HMAC with a public key) nor the
source of keys. No error contains the token, its claims or a key.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jwt

from sidecar.core.errors import Fault, PolicyError, StoreError
from sidecar.core.identity import Identity
from sidecar.ports import Clock, Keys

Done = Callable[[Identity | StoreError | None], None]
Fetch = Callable[[str], Awaitable[bytes]]

# The algorithms of a key type (JWK `kty`, `crv`).
_FITS = {
    ("oct", ""): ("HS256", "HS384", "HS512"),
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ALGORITHMS = tuple(name for names in _FITS.values() for name in names)
_REFETCH_US = 10_000_000  # between two fetches for an unknown key
_GOOD, _BAD = 50_000, 10_000  # cached tokens, bounded separately
_BAD_TTL_US = 5_000_000
_WAITING = 10_000
_LAST_S = 1 << 40


@dataclass(frozen=True, slots=True)
class JwtRules:
    """The requirements for a valid token, and the claims that make its identity.

    `algorithms`: the allowed ones of ALGORITHMS. A token must have `audience` and `issuer`, if they are set. `plan` is
    used if the token has no `plan_claim`; a token without subject or customer is invalid. `leeway_s` allows for a
    difference of clocks.
    """

    algorithms: tuple[str, ...]
    audience: str = ""
    issuer: str = ""
    subject_claim: str = "sub"
    customer_claim: str = "customer"
    plan_claim: str = "plan"
    plan: str = ""
    leeway_s: int = 30
    keys_ttl_s: int = 600

    def __post_init__(self) -> None:
        if not self.algorithms or any(name not in ALGORITHMS for name in self.algorithms):
            raise ValueError(f"algorithms: use some of {', '.join(ALGORITHMS)}")


class _Key:
    """A key, and the algorithms that are allowed with it."""

    __slots__ = ("algorithms", "id", "key")

    def __init__(self, raw: Mapping[str, Any], allowed: Sequence[str]) -> None:
        fits = _FITS.get((raw.get("kty", ""), raw.get("crv", "")), ())
        own = raw.get("alg")
        self.algorithms = tuple(name for name in fits if name in allowed and own in (None, name))
        self.id = raw.get("kid")
        self.key: Any = jwt.PyJWK(dict(raw), self.algorithms[0]).key if self.algorithms else None


def read_jwks(text: bytes, file: str, allowed: Sequence[str]) -> list[_Key]:
    """The keys of a JWK Set (RFC 7517 §5) for the allowed algorithms. PolicyError: there are no such keys."""
    try:
        made = [_Key(raw, allowed) for raw in json.loads(text)["keys"] if raw.get("use", "sig") == "sig"]
    except (AttributeError, KeyError, TypeError, ValueError, jwt.PyJWTError):
        raise PolicyError([Fault(file, 0, "keys", 'is not a JWK Set: write {"keys": [{"kty": …}]}')]) from None
    usable = [key for key in made if key.algorithms]
    if not usable:
        raise PolicyError([Fault(file, 0, "keys", f"has no key for {', '.join(allowed)}")])
    return usable


class JwtKeys(Keys):
    """Identities by verified tokens. `keys` is the text of a JWK Set; or `fetch` gets one from `url`.

    A fetched set is used for `keys_ttl_s`, and longer if a new one cannot be fetched. PolicyError: `keys` is wrong.
    """

    def __init__(
        self, rules: JwtRules, clock: Clock, *, keys: bytes = b"", url: str = "", fetch: Fetch | None = None
    ) -> None:
        if bool(keys) is (fetch is not None and bool(url)):
            raise ValueError("JwtKeys needs either keys, or url and fetch")
        self._rules = rules
        self._clock = clock
        self._url = url
        self._fetch = fetch
        self._keys = read_jwks(keys, "keys", rules.algorithms) if keys else []
        self._fetched_us = self._tried_us = -(1 << 60)
        self._fetching: asyncio.Task[None] | None = None
        self._waiting: list[tuple[bytes, Done]] = []
        self._good: OrderedDict[bytes, tuple[Identity, int]] = OrderedDict()
        self._bad: OrderedDict[bytes, int] = OrderedDict()

    def find_token(self, token: bytes, done: Done) -> None:
        """The identity; None if the token is invalid; StoreError if there are no keys to verify it."""
        digest, now_us = sha256(token).digest(), self._clock.now_us()
        good = self._good.get(digest)
        if good is not None and now_us < good[1]:
            done(good[0])
        elif now_us < self._bad.get(digest, 0):
            done(None)
        else:
            self._verify(token, done)

    def _verify(self, token: bytes, done: Done) -> None:
        """Verify with the present keys; wait for new ones only if none of them can be the token's."""
        lacking = self._fetch is not None and not self._candidates(token)
        if self._fetch is not None and self._due(lacking=lacking):
            self._tried_us = self._clock.mono_us()
            self._fetching = asyncio.get_running_loop().create_task(self._refresh(self._fetch))
        if not lacking or self._fetching is None:
            done(self._verified(token))
        elif len(self._waiting) >= _WAITING:
            done(StoreError(f"jwt: {_WAITING} tokens wait for keys from {self._url} already"))
        else:
            self._waiting.append((token, done))

    def _due(self, *, lacking: bool) -> bool:
        now_us = self._clock.mono_us()
        old = now_us - self._fetched_us >= self._rules.keys_ttl_s * 1_000_000
        return self._fetching is None and (old or lacking) and now_us - self._tried_us >= _REFETCH_US

    async def close(self) -> None:
        """Stop fetching, and answer the calls that still wait."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    async def _refresh(self, fetch: Fetch) -> None:
        try:
            self._keys = read_jwks(await fetch(self._url), self._url, self._rules.algorithms)
            self._fetched_us = self._clock.mono_us()
        except (OSError, TimeoutError, PolicyError, StoreError):
            pass  # the old keys stay valid; without keys the answer is a StoreError
        finally:
            self._fetching = None
            waiting, self._waiting = self._waiting, []
            for token, done in waiting:
                asyncio.get_running_loop().call_soon(done, self._verified(token))

    def _verified(self, token: bytes) -> Identity | StoreError | None:
        """The result, which is cached, but not longer than fetched keys: a withdrawn key invalidates its tokens."""
        if not self._keys:
            return StoreError("jwt: there are no keys to verify tokens with")
        digest, now_us = sha256(token).digest(), self._clock.now_us()
        identities = (self._checked(token, key) for key in self._candidates(token))
        identity = next((each for each in identities if each is not None), None)
        if identity is None:
            self._bad[digest] = now_us + _BAD_TTL_US
            if len(self._bad) > _BAD:
                self._bad.popitem(last=False)
            return None
        before = self._good.pop(digest, None)
        if before is not None and before[0].same_as(identity):
            identity = before[0]
        ttl_us = self._rules.keys_ttl_s * 1_000_000 if self._fetch is not None else 1 << 60
        self._good[digest] = identity, min(identity.expires_us, now_us + ttl_us)
        if len(self._good) > _GOOD:
            self._good.popitem(last=False)
        return identity

    def _candidates(self, token: bytes) -> list[_Key]:
        """The keys that may have signed it: the key with its `kid`; without `kid` all."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            return []
        name = header.get("kid")
        return [key for key in self._keys if name is None or key.id in (None, name)]

    def _checked(self, token: bytes, key: _Key) -> Identity | None:
        rules = self._rules
        required = ["exp", rules.subject_claim, rules.customer_claim]
        try:
            claims = jwt.decode(  # with an audience or issuer, the token must have it
                token, key.key, algorithms=key.algorithms, audience=rules.audience or None, issuer=rules.issuer or None,
                options={"require": required, "verify_aud": bool(rules.audience), "verify_exp": False,
                         "verify_nbf": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.PyJWTError:
            return None
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity | None:
        """The identity in the claims, if they are valid by `self._clock`; PyJWT would use the system's clock."""
        rules = self._rules
        exp, nbf = claims["exp"], claims.get("nbf", 0)
        names = claims[rules.subject_claim], claims[rules.customer_claim], claims.get(rules.plan_claim, rules.plan)
        if any(isinstance(moment, bool) or not isinstance(moment, int | float) for moment in (exp, nbf)):
            return None
        if not (abs(exp) < _LAST_S and abs(nbf) < _LAST_S):  # false for NaN
            return None
        if not all(isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable() for name in names):
            return None
        now_us, leeway_us = self._clock.now_us(), rules.leeway_s * 1_000_000
        expires_us = int(exp) * 1_000_000 + leeway_us
        if not int(nbf) * 1_000_000 - leeway_us <= now_us < expires_us:
            return None
        subject, customer, plan = names
        return Identity(f"jwt:{customer}:{subject}", subject, customer, plan, expires_us=expires_us)
