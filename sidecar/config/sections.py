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

from sidecar.config.addresses import Address, RedisEndpoint, parse_address, parse_addresses, parse_redis_url
from sidecar.config.models import Model
from sidecar.config.patterns import Name, Servers


def _absolute(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path if base is None else base / path


def listed(value: Any) -> Any:
    """A list may be written as one text with commas, as the environment does."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


LocalPath = Annotated[Path, AfterValidator(_absolute)]
_ListenAddress = Annotated[
    Address, BeforeValidator(parse_address, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]
Listen = Annotated[
    tuple[_ListenAddress, ...],
    Field(min_length=1),
    BeforeValidator(parse_addresses, json_schema_input_type=str | tuple[str, ...]),
]
Positive = Annotated[int, Field(gt=0, le=2**53 - 1)]
NotNegative = Annotated[int, Field(ge=0, le=2**53 - 1)]


def _written(value: Any) -> Any:
    """A version without quotes is a number to YAML."""
    return str(value) if isinstance(value, float) else value


class ServerTls(Model):
    """TLS of the listener. All files are read again when they change."""

    cert: LocalPath
    """The certificate chain, our own certificate first (PEM). Read again when it changes. Example: `tls/tls.crt`"""
    key: LocalPath
    """The private key of `cert`, without a passphrase (PEM). Read again when it changes. Example: `tls/tls.key`"""
    client_ca: LocalPath | None = None
    """The authorities of clients' certificates (PEM). It goes with `client_auth`. Example: `tls/clients.pem`"""
    client_auth: Literal["none", "optional", "required"] = "none"
    """Whether a client presents a certificate; `optional` verifies one that is presented."""
    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(_written)] = "1.2"
    """The oldest version of TLS that is accepted."""


class ClientTls(Model):
    """Which servers are trusted, and our own certificate."""

    ca: LocalPath | None = None
    """The authorities that are trusted instead of the system's (PEM). Example: `tls/internal.pem`"""
    verify: bool = True
    """`false` trusts anyone: for tests."""
    cert: LocalPath | None = None
    """Our own certificate chain, for servers that ask for it (PEM). Example: `tls/client.crt`"""
    key: LocalPath | None = None
    """The private key of `cert` (PEM). Example: `tls/client.key`"""


class Control(Model):
    """The second listener: health, metrics, status (docs/operations.md)."""

    listen: Listen = (Address("127.0.0.1", 8081),)
    """Addresses of health, metrics and status, one or a list. Keep them off public networks. Example: `:8081`"""


class Keys(Model):
    """Where API keys are registered (a file, or `redis: true`), and the bounded cache before it."""

    file: LocalPath | None = None
    """The file of API keys. Without it and without `redis: true`: `keys.yaml`. Example: `keys.yaml`"""
    redis: bool = False
    """Keep API keys in Redis instead of a file. Needs `redis.url`."""
    pepper: SecretStr | None = None
    """A secret that is mixed into the hash of each key; changing it invalidates all keys. Example:
    `a-long-random-text`"""
    cache_size: Positive = 100_000
    """The number of keys that each worker remembers."""
    cache_ttl_ms: Positive = 30_000
    """How long a known key is remembered: a revocation takes effect within it."""
    unknown_ttl_ms: Positive = 5_000
    """How long a worker remembers that a key is unknown."""
    failures_per_second: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """The unknown keys that one client address may present to the node each second; 0: any number."""


class Redis(Model):
    """The store of counters, wallets and (`keys.redis`) keys. Without it they are in memory, for one worker."""

    url: Annotated[str, Field(repr=False)]
    """Server, sentinels or cluster: `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`. Example:
    `redis://127.0.0.1:6379/0`"""
    timeout_ms: Positive = 50
    """How long a request waits for Redis before limits are decided as their `on_store_failure` says."""
    connect_timeout_ms: Positive = 1_000
    """How long connecting may take."""
    breaker_failures: Positive = 5
    """After so many failures in a row Redis is not asked for `breaker_open`."""
    breaker_open_ms: Positive = 1_000
    """How long Redis is not asked after `breaker_failures` failures."""
    leases: bool = True
    """Workers with steady demand reserve units in advance and decide locally (docs/leases.md)."""
    nodes: Annotated[int, Field(ge=1, le=1_024)] = 1
    """The number of nodes on this Redis: leases and local decisions divide limits by all their workers."""
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
    """The names of topics."""

    records: Name = "usage.records"
    """The topic of usage records."""
    denials: Name = "usage.denials"
    """The topic of denials."""
    positions: Name = "usage.positions"
    """The topic of the shipper's positions."""


class Security(Model):
    """Connection to the brokers."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """With or without TLS (`SSL`) and SASL."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """How SASL authenticates."""
    username: str | None = None
    """The user of SASL. Example: `sidecar`"""
    password: SecretStr | None = None
    """The password of SASL; the environment keeps it out of the file. Example: `a-secret`"""
    token_file: LocalPath | None = None
    """The file of the token of `mechanism: OAUTHBEARER`, read for each login. Example: `/run/secrets/kafka-token`"""
    ca: LocalPath | None = None
    """The authorities that are trusted instead of the system's (PEM). Example: `tls/internal.pem`"""
    cert: LocalPath | None = None
    """Our own certificate chain (PEM). Example: `tls/client.crt`"""
    key: LocalPath | None = None
    """The private key of `cert` (PEM). Example: `tls/client.key`"""


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


class Kafka(Model):
    """The stream of records (docs/kafka.md). Without it they go to a file or to standard output (`sink`)."""

    bootstrap_servers: Annotated[
        Servers, BeforeValidator(_joined, json_schema_input_type=Servers | tuple[Servers, ...])
    ]
    """`host:port`, several with commas or as a list. Example: `kafka-1:9092,kafka-2:9092`"""
    topics: Topics = Topics()
    security: Security = Security()
    transactional_id_prefix: Name = "sidecar"
    """The transactional id is this, a hyphen and `node`."""


class Denials(Model):
    """How many denials get a record of their own. The others are counted in summary records."""

    share_percent: Annotated[int, Field(ge=1, le=50)] = 10
    """The largest share of the journal's cap that records and summaries of denials take."""
    per_second: NotNegative = 1_000
    """Denials a second with a record of their own, on the node; the others are counted in summaries."""
    per_limit: NotNegative = 100
    """The same for each combination of customer, limit and reason."""
    summary_seconds: Positive = 10
    """How often a summary of the other denials is written."""


class Journal(Model):
    """The durable log of records that have not been shipped."""

    dir: LocalPath = Path("data/journal")
    """The folder of the journal, on a durable volume."""
    durability: Literal["os", "interval", "always"] = "os"
    """When records are synced: by the system, each `interval`, or before each answer ends (`always`)."""
    interval_ms: Positive = 100
    """Time between syncs with `durability: interval`."""
    state_seconds: Positive = 10
    """How often a node without Redis saves its counters and wallets; a start replays later records."""
    segment_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 32)] = 64 << 20
    """The size of a segment file, from 64KiB to 4GiB."""
    cap_bytes: Positive = 4 << 30
    """The size of the whole journal on this node: at least two segments a worker."""
    on_full: Literal["reject", "serve"] = "reject"
    """When the journal is full: answer 503, or serve without a record."""
    denials: Denials = Denials()


class Sink(Model):
    """The destination of records without Kafka: a JSON-lines file, or standard output."""

    file: LocalPath | None = Path("data/records.jsonl")
    """The file of JSON lines that records go to without Kafka."""
    stdout: bool = False
    """Write records to standard output instead of the file."""


class ClickHouse(Model):
    """The ledger in ClickHouse (docs/scale.md), filled by `sidecar ledger push`."""

    url: SecretStr
    """Where it is; the environment keeps the password out of the file. Example: `https://sidecar:secret@ch:8443/ledger`"""


class Ledger(Model):
    """The records of all nodes in Parquet files, for billing (docs/ledger.md). Only `sidecar ledger` uses it."""

    dir: LocalPath = Path("data/ledger")
    """The folder of the ledger, on a durable volume; one for all loaders."""
    memory_bytes: Annotated[int, Field(ge=256 << 20)] = 1 << 30
    """The memory that DuckDB may use; the rest is in temporary files."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """The threads of a question to the ledger; 0: one for each core. A loader uses one for each partition at a time."""
    retain_seconds: NotNegative = 0
    """How long `ledger compact` retains records after their period, at least; 0: for ever. Example: `400d`"""
    retain_denials_seconds: NotNegative = 0
    """The same of the topic of denials; 0: as `retain`. Example: `90d`"""
    engine: Literal["duckdb", "clickhouse"] = "duckdb"
    """The engine that answers `totals`, `trace` and `query`: DuckDB on the files, or ClickHouse."""
    clickhouse: ClickHouse | None = None


class Http(Model):
    """Bounds on requests and connections of clients (docs/connections.md)."""

    head_bytes: Positive = 32 << 10
    """The size of a request's head."""
    fields: Positive = 100
    """The number of fields in a head."""
    field_bytes: Positive = 8 << 10
    """The size of one field."""
    target_bytes: Positive = 8 << 10
    """The size of a request's target."""
    underscores: bool = False
    """Accept field names with underscores, except those that define framing."""
    body_max_bytes: NotNegative = 0
    """The size of a request's body; 0: unbounded. A route may set its own. Example: `10MiB`"""
    head_timeout_ms: Positive = 10_000
    """Time for a TLS handshake, and for a head."""
    idle_timeout_ms: Positive = 75_000
    """Pause between two requests. Above the 60 s of common load balancers: they are to close first."""
    body_grace_ms: Positive = 10_000
    """Time before `body_bytes_per_second` is required."""
    body_bytes_per_second: NotNegative = 256
    """A body that arrives more slowly is refused after `body_grace`; 0: any speed."""
    max_connections: NotNegative = 0
    """Connections of clients to each worker; 0: as many as its descriptors allow beside upstreams and files."""


class Log(Model):
    """Logging of the processes themselves; never of exchanges."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    format: Literal["text", "json"] = "text"
    """Plain lines, or one JSON object each."""
