"""Settings come from one file and from the environment, which takes precedence; others have a safe default.

Without a file everything is embedded: counters in memory, keys from a file, records to a JSON-lines file. Relative
paths are relative to the file (without a file, to the working directory). Names carry their units; a
document may write `timeout: 50ms` for `timeout_ms: 50`.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, IPvAnyNetwork, PrivateAttr
from pydantic.json_schema import GenerateJsonSchema

from sidecar.config.addresses import Address, Url
from sidecar.config.document import Document, Loc, Position, did_you_mean, read
from sidecar.config.models import Model, validate
from sidecar.config.patterns import USAGE_PATH, Name
from sidecar.config.sections import (
    Control,
    Http,
    Journal,
    Kafka,
    Keys,
    Ledger,
    Listen,
    LocalPath,
    Log,
    NotNegative,
    Positive,
    Redis,
    ServerTls,
    Sink,
    listed,
)
from sidecar.config.upstreams import Upstream
from sidecar.config.upstreams import faults_of as upstream_faults
from sidecar.core.errors import Fault, PolicyError

PREFIX: Final = "SIDECAR_"

# Kubernetes puts the address of every Service into the environment; one named `sidecar` must not break the start.
_SERVICE_LINKS: Final = re.compile(
    r"SIDECAR(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT(_.+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)"
)
_IN_YAML: Final = re.compile(r"\{|\[(?![^][]*\]:\d)")
_NOT_SETTINGS: Final = frozenset({"SIDECAR_CONFIG"})  # the path of the file itself, read by the command line


def _default_upstreams() -> dict[str, Upstream]:
    return {"default": Upstream(urls=(Url(tls=False, host="127.0.0.1", port=9000),))}


class Settings(Model):
    """Everything an operator can set."""

    listen: Listen = (Address("127.0.0.1", 8080),)
    """Addresses of the API for clients, one or a list; port 0 lets the system choose. Example: `:8080`"""
    tls: ServerTls | None = None
    control: Control = Control()
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Worker processes; more than one needs `redis.url`."""
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1)] = Field(default_factory=_default_upstreams)
    policies: LocalPath = Path("policies")
    """The folder of policies, or one file."""
    keys: Keys = Keys()
    redis: Redis | None = None
    kafka: Kafka | None = None
    journal: Journal = Journal()
    sink: Sink = Sink()
    ledger: Ledger = Ledger()
    http: Http = Http()
    node: Name = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", platform.node())[:63].lstrip("._-") or "node"
    )
    """The name of this node in records, unique among all nodes. The default is the name of the host. Example: `gw-1`"""
    region: Name = "local"
    """The name of the region in records, and of policies' look-up tables."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(listed)] = ()
    """Networks of proxies in front whose X-Forwarded-For and X-Request-Id are believed. Example: `[10.0.0.0/8]`"""
    ratelimit_headers: bool = True
    """Send `RateLimit` and `RateLimit-Policy` with answers."""
    x_ratelimit_headers: bool = False
    """Send `X-RateLimit-…` with answers as well."""
    usage_path: Annotated[str, Field(pattern=USAGE_PATH)] = "/.well-known/usage"
    """The path at which a client sees what is left of its limits, with its own key; empty: none."""
    drain_seconds: NotNegative = 30
    """How long requests under way may take after SIGTERM."""
    checkpoint_seconds: Positive = 5
    """How often a worker writes a checkpoint record."""
    log: Log = Log()
    _document: Document = PrivateAttr(Document("settings", {}, {}))

    def fault(self, loc: Loc, what: str) -> Fault:
        """The fault `what` at `loc`, with the file and line of that setting."""
        return self._document.fault(loc, what)

    def ascribe(self, faults: Iterable[Fault]) -> list[Fault]:
        """`faults`; one of a whole file or folder, such as a missing one, with the setting that names it."""
        named: dict[str, Loc] = {str(self.policies): ("policies",), str(self.keys.file): ("keys", "file")}
        return [
            self.fault(named[fault.file], f"{fault.file} {fault.what}")
            if fault.file in named and not (fault.line or fault.where)
            else fault
            for fault in faults
        ]

    @property
    def total_workers(self) -> int:
        """The number of workers on all nodes that use the same store."""
        return self.workers * (self.redis.nodes if self.redis is not None else 1)

    @property
    def scheme(self) -> Literal["http", "https"]:
        """The scheme of all addresses in `listen`."""
        return "http" if self.tls is None else "https"

    @property
    def destination(self) -> Literal["kafka", "stdout", "file"]:
        """Where records go. Of several that are set, the first in this order."""
        if self.kafka is not None:
            return "kafka"
        return "stdout" if self.sink.stdout or self.sink.file is None else "file"

    @property
    def record_file(self) -> Path | None:
        """The file that records go to; None: they go elsewhere."""
        return self.sink.file if self.destination == "file" else None


def load_settings(path: Path | None, env: Mapping[str, str]) -> Settings:
    """The settings of the file at `path` (None: no file), overridden by `env`. PolicyError carries every fault."""
    document = Document("settings", {}, {}) if path is None else read(path)
    if not isinstance(document.data, dict):
        raise PolicyError([document.fault((), "is not a mapping: write `listen: 127.0.0.1:8080` and so on")])
    faults = _apply_environment(document, env)
    base = Path.cwd() if path is None else path.parent.absolute()
    try:
        settings = validate(Settings, document, {"base": base})
    except PolicyError as error:
        raise PolicyError(faults + error.faults) from None
    settings._document = document
    faults += [document.fault(loc, what) for loc, what in _cross_faults(settings)]
    if faults:
        raise PolicyError(faults)
    if settings.keys.file is None and not settings.keys.redis:
        return settings.model_copy(update={"keys": settings.keys.model_copy(update={"file": base / "keys.yaml"})})
    return settings


def settings_schema() -> dict[str, Any]:
    """The JSON Schema of the settings file."""
    schema = Settings.model_json_schema(schema_generator=_SchemaWriter)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _SchemaWriter(GenerateJsonSchema):
    """Writes the defaults of addresses as people write them: pydantic would write the tuples that they are."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Address | Url):
            return str(dft)
        plain = isinstance(dft, list | tuple)
        return [self.encode_default(each) for each in dft] if plain else super().encode_default(dft)


def _apply_environment(document: Document, env: Mapping[str, str]) -> list[Fault]:
    """Write every `SIDECAR_A__B` over `a.b`, with the variable as its position."""
    faults = []
    for name, value in sorted(env.items()):
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS or _SERVICE_LINKS.fullmatch(name):
            continue
        loc = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if not _top_level(loc[0]):
            hint = did_you_mean(loc[0], Settings.model_fields)
            faults.append(Fault(name, 0, "", f"no setting has this name; {hint} ({PREFIX}REDIS__URL sets redis.url)"))
        else:
            _put(document, loc, name, value)
    return faults


def _top_level(name: str) -> bool:
    return any(field in (name, f"{name}_seconds") for field in Settings.model_fields)


def _put(document: Document, loc: Loc, variable: str, value: str) -> None:
    """Set one value; lists and mappings are written in YAML's flow form, everything else is the text itself.

    `[::1]:8080` is not a list.
    """
    inside: dict[str | int, Any] = document.data
    for part in loc[:-1]:
        if not isinstance(inside.get(part), dict):
            inside[part] = {}
        inside = inside[part]
    inside[loc[-1]] = read(Path(variable), value).data if _IN_YAML.match(value) else value
    for known in [known for known in document.positions if known[: len(loc)] == loc]:
        del document.positions[known]
    for end in range(1, len(loc) + 1):
        document.positions.setdefault(loc[:end], Position(variable, 0))


def _cross_faults(settings: Settings) -> list[tuple[Loc, str]]:
    """Faults between settings that are each valid by themselves."""
    tls = settings.kafka.security if settings.kafka else None
    checks: list[tuple[bool, Loc, str]] = [
        (
            settings.workers > 1 and settings.redis is None,
            ("workers",),
            f"{settings.workers} workers have in-memory counters that they cannot share: set redis.url or workers: 1",
        ),
        (
            settings.keys.redis and settings.redis is None,
            ("keys", "redis"),
            "needs redis.url, or set keys.file instead",
        ),
        (
            settings.keys.redis and settings.keys.file is not None,
            ("keys", "file"),
            "is one of two: keep file, or redis: true",
        ),
        (
            settings.kafka is None and settings.sink.file is None and not settings.sink.stdout,
            ("sink",),
            "records would go nowhere: set sink.file, sink.stdout: true or kafka.bootstrap_servers",
        ),
        (
            # The cap is divided by the workers, and the current segment is never freed: a smaller journal stays full.
            settings.journal.cap_bytes < 2 * settings.journal.segment_bytes * settings.workers,
            ("journal", "cap_bytes"),
            "is less than two segments a worker: raise cap, or lower segment",
        ),
        (
            tls is not None
            and tls.protocol.startswith("SASL")
            and tls.mechanism != "OAUTHBEARER"
            and (tls.username is None or tls.password is None),
            ("kafka", "security", "protocol"),
            "needs kafka.security.username and kafka.security.password",
        ),
        (
            tls is not None
            and (tls.protocol.startswith("SASL") and tls.mechanism == "OAUTHBEARER") is (tls.token_file is None),
            ("kafka", "security", "token_file"),
            "goes with `mechanism: OAUTHBEARER` and a SASL protocol, and they with it: set all or none",
        ),
    ]
    checks += [
        (given.tls.cert is None and given.tls.key is not None, (*loc, "tls", "key"), "needs tls.cert beside it")
        for loc, given in _with_client_tls(settings)
    ]
    if settings.tls is not None and (settings.tls.client_auth == "none") is not (settings.tls.client_ca is None):
        what = "goes with `client_auth: required` or `optional`, and they with it: set both or neither"
        checks.append((True, ("tls", "client_ca"), what))
    faults = [(loc, what) for wrong, loc, what in checks if wrong]
    faults += [*_overlap_faults(settings), *upstream_faults(settings.upstreams)]
    if settings.redis is not None:
        try:
            _ = settings.redis.endpoint
        except ValueError as error:
            faults.append((("redis", "url"), str(error)))
    return faults


def _overlap_faults(settings: Settings) -> list[tuple[Loc, str]]:
    """Addresses that cannot both be listened on."""
    listen, control = settings.listen, settings.control.listen
    faults: list[tuple[Loc, str]] = [
        (loc, f"has {one} and {other}, which overlap: keep one")
        for loc, addresses in ((("listen",), listen), (("control", "listen"), control))
        for one, other in combinations(addresses, 2)
        if one.overlaps(other)
    ]
    return faults + [
        (("control", "listen"), f"{own} is taken by `listen` ({other}): give the control listener another port")
        for own, other in product(control, listen)
        if own.overlaps(other)
    ]


def _with_client_tls(settings: Settings) -> list[tuple[Loc, Upstream | Redis]]:
    redis = [] if settings.redis is None else [(("redis",), settings.redis)]
    return [*((("upstreams", name), each) for name, each in settings.upstreams.items()), *redis]
