"""The fields that the gateway adds to heads: Via, X-Forwarded-*, the caller's identity and RateLimit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.core.decision import Decision
from sidecar.core.headers import ratelimit_fields, warning_fields, x_ratelimit_fields
from sidecar.core.http import forward
from sidecar.core.http.forward import Field, UpstreamHead
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import digest
from sidecar.core.policy import PRESERVE
from sidecar.core.stripping import Stripped, strip_keys
from sidecar.ports import Client, Keys

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange
    from sidecar.gateway.routing import RoutedRequest

DROPS_CACHED: Final = 256  # sets of header names that hold keys; a client chooses the names
_NO_FIELDS: Final[list[Field]] = []
Network = IPv4Network | IPv6Network


class GatewayOptions(NamedTuple):
    """How this node behaves: its name, the proxies that it believes, the fields that it sends.

    `failures_per_second`: the unknown keys that this worker looks up for one client; 0: any number. `usage_path`: where
    a client sees what is left of its limits; "": nowhere.
    """

    node: str
    pepper: bytes = b""
    trusted: tuple[Network, ...] = ()
    limit_headers: bool = True
    x_limit_headers: bool = False
    failures_per_second: int = 0
    usage_path: str = ""

    @property
    def pseudonym(self) -> bytes:
        """This node's name in Via (RFC 9110 §7.6.3)."""
        return f"sidecar-{self.node}".encode()


class HeadFields:
    """Makes the head that goes up, and the further fields of one that goes down."""

    def __init__(self, options: GatewayOptions, keys: Keys) -> None:
        self.keys = keys
        self._options = options
        self._pseudonym = options.pseudonym
        self._trusts = lru_cache(maxsize=4096)(lambda peer: _within(peer, options.trusted)) if options.trusted else None
        self._dropped: dict[frozenset[bytes], frozenset[bytes]] = {}

    def is_loop(self, request: Request) -> bool:
        """Our own pseudonym in Via (RFC 9110 §7.6.3): a gateway that forwards to itself would never end."""
        pairs = zip(request.names, request.headers, strict=True)
        return any(
            name == b"via" and self._pseudonym in value.replace(b",", b" ").split() for name, (_, value) in pairs
        )

    def upstream_head(self, exchange: RequestExchange) -> UpstreamHead:
        """The head that goes up: without the credential, with the gateway's fields."""
        head = exchange.routed.upstream_head
        return self._rebuilt(exchange) if head is None or exchange.rewritten else head

    def _rebuilt(self, exchange: RequestExchange) -> UpstreamHead:
        request, routed = exchange.request, exchange.routed
        stripped = self._stripped(request, routed)
        dropped = self._drops(stripped.dropped)
        if b"traceparent" in request.fields and not routed.traceparent:
            dropped = dropped | {b"traceparent", b"tracestate"}
        if exchange.rewritten:  # the part that is taken out of the answer again has to be readable
            dropped = dropped | {b"accept-encoding"}
        hops = forward.max_forwards(request) if b"max-forwards" in request.fields else forward.UNLIMITED
        if hops > 0:
            dropped = dropped | {b"max-forwards"}
        fields = forward.request_fields(request, dropped)
        if hops > 0:
            fields.append((b"Max-Forwards", b"%d" % (hops - 1)))
        fields += stripped.fields
        fields.append(forward.via(request, self._pseudonym))
        fields += self._forwarded(request, exchange.client)
        if exchange.rewritten:
            fields.append((b"Accept-Encoding", b"identity"))
        identity = exchange.identity
        if routed.route.identity_headers and identity is not None:
            fields += forward.identity_fields(identity.customer, identity.subject, identity.key_id, exchange.plan)
        length = exchange.rewritten if exchange.rewritten and request.length > 0 else request.length
        target = forward.upstream_target(request, stripped.query, preserve=routed.route.paths == PRESERVE)
        head = UpstreamHead(request, target, fields, length)
        # The identity of a key may change while the head stays, and so may what is sent for its body.
        if not (routed.route.identity_headers or exchange.rewritten):
            routed.upstream_head = head
        return head

    def _stripped(self, request: Request, routed: RoutedRequest) -> Stripped:
        if routed.route.keep_credential:
            return Stripped(frozenset(), [], request.query)
        return strip_keys(request, routed.source, routed.route.sources, self._is_registered)

    def _is_registered(self, credential: bytes) -> bool:
        return self.keys.known(digest(credential, self._options.pepper)) is not None

    def _drops(self, names: frozenset[bytes]) -> frozenset[bytes]:
        dropped = self._dropped.get(names)
        if dropped is None:
            if len(self._dropped) >= DROPS_CACHED:
                self._dropped.clear()
            dropped = self._dropped[names] = forward.dropped_with(names)
        return dropped

    def trusts(self, peer: str) -> bool:
        """Whether the peer is a proxy that the settings name."""
        return self._trusts is not None and self._trusts(peer)

    def _forwarded(self, request: Request, client: Client) -> Sequence[Field]:
        if self.trusts(client.peer):
            return forward.forwarded_on(request, client.peer, tls=client.tls)
        return forward.forwarded(client.peer, request.host, tls=client.tls)

    def answer_fields(self, decision: Decision, head: ResponseHead) -> Sequence[Field]:
        """The fields that an upstream's answer gets from the decision; its own RateLimit stays as it is."""
        fields = self.limit_fields(decision) if b"ratelimit" not in head.fields else _NO_FIELDS
        return [*fields, *warning_fields(decision)] if decision.shadowed else fields

    def limit_fields(self, decision: Decision) -> list[Field]:
        """The RateLimit fields, none where they are off."""
        if not self._options.limit_headers:
            return _NO_FIELDS
        fields = ratelimit_fields(decision)
        return fields + x_ratelimit_fields(decision) if self._options.x_limit_headers else fields


def _within(peer: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)
