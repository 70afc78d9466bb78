"""The sections of the settings: fields, units, bounds and safe defaults. This module reads no files.

A field's name carries its unit; a document may write `timeout: 50ms` for `timeout_ms: 50`. Relative paths are resolved
against the `base` of the validation's context.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
)

from sidecar.config.addresses import Address, RedisEndpoint, parse_address, parse_redis_url
from sidecar.config.models import Model
from sidecar.config.patterns import Name, Servers


def _absolute(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else base / path


def listed(value: Any) -> Any:
    """A list may be written as one text with commas, as the environment does."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


LocalPath = Annotated[Path, AfterValidator(_absolute)]
Listen = Annotated[
    Address, BeforeValidator(parse_address, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]
Positive = Annotated[int, Field(gt=0, le=2**53 - 1)]
NotNegative = Annotated[int, Field(ge=0, le=2**53 - 1)]


def _written(value: Any) -> Any:
    """A version without quotes is a number to YAML."""
    return str(value) if isinstance(value, float) else value


class ServerTls(Model):
    """The listener's certificate chain and private key, PEM. Their files are read again when they change.

    `client_auth`: whether a client has to present a certificate that `client_ca` (PEM) issued; `optional` verifies one
    that is presented.
    """

    cert: LocalPath
    key: LocalPath
    client_ca: LocalPath | None = None
    client_auth: Literal["none", "optional", "required"] = "none"
    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(_written)] = "1.2"


class ClientTls(Model):
    """How we trust a server: `ca` instead of the system's (PEM); `verify: false` trusts anyone; our own certificate."""

    ca: LocalPath | None = None
    verify: bool = True
    cert: LocalPath | None = None
    key: LocalPath | None = None


class Control(Model):
    """The second listener: health, metrics, admin."""

    listen: Listen = Address("127.0.0.1", 8081)


class Keys(Model):
    """Where API keys are registered (a file, or `redis: true`), and the bounded cache before it."""

    file: LocalPath | None = None
    redis: bool = False
    pepper: SecretStr | None = None
    cache_size: Positive = 100_000
    cache_ttl_ms: Positive = 30_000
    unknown_ttl_ms: Positive = 5_000


class Redis(Model):
    """The counters' store. `endpoint` is the parsed `url`; the breaker opens after `breaker_failures` in a row.

    `leases`: a worker with steady demand reserves units in advance and decides locally (docs/leases.md). `nodes`: the
    number of nodes on this store; limits are divided by all their workers for leases and local decisions.
    """

    url: Annotated[str, Field(repr=False)]
    timeout_ms: Positive = 50
    connect_timeout_ms: Positive = 1_000
    breaker_failures: Positive = 5
    breaker_open_ms: Positive = 1_000
    leases: bool = True
    nodes: Annotated[int, Field(ge=1, le=1_024)] = 1
    tls: ClientTls = ClientTls()

    @property
    def endpoint(self) -> RedisEndpoint:
        """Mode, hosts, database, credentials and TLS."""
        endpoint, tls = parse_redis_url(self.url), self.tls
        if not endpoint.tls:
            return endpoint
        files = (("ssl_ca_certs", tls.ca), ("ssl_certfile", tls.cert), ("ssl_keyfile", tls.key))
        trust = () if tls.verify else (("ssl_cert_reqs", "none"), ("ssl_check_hostname", False))
        return endpoint._replace(ssl=(*((name, str(path)) for name, path in files if path is not None), *trust))


class Topics(Model):
    """Kafka topics: usage records, denials, and the shipper's positions."""

    records: Name = "usage.records"
    denials: Name = "usage.denials"
    positions: Name = "usage.positions"


class Security(Model):
    """Connection to the brokers. `ca`, `cert` and `key` are PEM files."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: SecretStr | None = None
    ca: LocalPath | None = None
    cert: LocalPath | None = None
    key: LocalPath | None = None


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


class Kafka(Model):
    """The stream of records. `bootstrap_servers` is `host:port`, several with commas or as a list."""

    bootstrap_servers: Annotated[
        Servers, BeforeValidator(_joined, json_schema_input_type=Servers | tuple[Servers, ...])
    ]
    topics: Topics = Topics()
    security: Security = Security()
    transactional_id_prefix: Name = "sidecar"


class Denials(Model):
    """How many denials a second get their own record: `per_second` on the node, `per_limit` by customer, limit, reason.

    The others are counted in a summary record each `summary_seconds`. Records and summaries of denials take at most
    `share_percent` of the journal's cap.
    """

    share_percent: Annotated[int, Field(ge=1, le=50)] = 10
    per_second: NotNegative = 1_000
    per_limit: NotNegative = 100
    summary_seconds: Positive = 10


class Journal(Model):
    """The durable log: its folder, durability, sizes of a segment and of the whole, and the behaviour when it is full.

    `state_seconds`: how often a node without Redis saves its counters and wallets; a start replays later records.
    """

    dir: LocalPath = Path("data/journal")
    durability: Literal["os", "interval", "always"] = "os"
    interval_ms: Positive = 100
    state_seconds: Positive = 10
    segment_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 32)] = 64 << 20
    cap_bytes: Positive = 4 << 30
    on_full: Literal["reject", "serve"] = "reject"
    denials: Denials = Denials()


class Sink(Model):
    """The destination of records without Kafka: a JSON-lines file, or standard output."""

    file: LocalPath | None = Path("data/records.jsonl")
    stdout: bool = False


class Http(Model):
    """Bounds on requests. After the grace period, a body below `body_bytes_per_second` is refused."""

    head_bytes: Positive = 32 << 10
    fields: Positive = 100
    field_bytes: Positive = 8 << 10
    target_bytes: Positive = 8 << 10
    underscores: bool = False  # in field names, except those that define framing
    body_max_bytes: NotNegative = 0  # 0: unbounded; a route may set a bound
    head_timeout_ms: Positive = 10_000
    idle_timeout_ms: Positive = 75_000  # above the 60 s of common load balancers: they are to close first
    body_grace_ms: Positive = 10_000
    body_bytes_per_second: NotNegative = 256


class Log(Model):
    """Logging of the processes themselves; never of exchanges."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
