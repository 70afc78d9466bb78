"""The table of all fields of all kinds of records. A new field is a new row here.

Five things are made of it, so that they cannot differ: what is written of an exchange (`read`; templates.py has a
faster form of the same), the record of one that was open at a crash (`crashed`), the builders of the other kinds, the
JSON Schema, and the table in docs/record.md.

To add a field of an exchange: a row with its `read`, an attribute with a default in `Facts`, and the assignment where
its value is known. Without a `slot` it is written by its `read`. A field that a released version did not write is
optional: v1 of a kind only gains fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.instants import instant
from sidecar.core.record.decisions import decision_text

if TYPE_CHECKING:
    from sidecar.core.record.templates import RecordTemplates

Json = dict[str, Any]
KINDS: Final = (
    "usage", "unattributed", "denial", "denial-summary", "correction", "void", "alert", "checkpoint", "source",
    "posting", "policy", "audit",
)  # fmt: skip


class Facts:
    """All facts of an exchange that are recorded. A denial needs only the first group, `duration_us` and `parent`.

    `id` has 26 ASCII bytes; `plan` is a label like "pro@3", "" where nobody is known; `traceparent` is valid, or "";
    `arrived_us` is since the epoch; `usage` units by meter; sizes are of bodies. `usage_lines` are as the field says.
    A base class and no Protocol: compiled, its fields are read without a look-up.
    """

    __slots__ = (
        "id", "identity", "plan", "route", "method", "path", "status", "decision", "traceparent", "arrived_us",
        "bytes_in", "bytes_out", "duration_us", "upstream_us", "attempts", "outcome",
        "usage", "usage_lines", "dims", "quality", "billable", "billable_reason", "client_disconnected",
        "templates",
    )  # fmt: skip

    id: bytes
    identity: Identity | None
    plan: str
    route: str
    method: str
    path: str
    status: int
    decision: Decision | None
    traceparent: str
    arrived_us: int
    bytes_in: int
    bytes_out: int
    duration_us: int
    upstream_us: int
    attempts: int
    outcome: str
    usage: dict[str, int]
    usage_lines: list[Json]
    dims: dict[str, str]
    quality: str
    billable: bool
    billable_reason: str
    client_disconnected: bool
    templates: RecordTemplates  # of this caller
    parent: str = ""  # a class that sets one of these has a slot for it
    upstream_request_id: str = ""
    client_request_id: str = ""

    @property
    def period_us(self) -> int:
        """When it was reserved, by the store's clock; without limits, when it arrived."""
        return self.decision.now_us if self.decision is not None else self.arrived_us


class Field(NamedTuple):
    """One row: a member of the data of records of `kinds` (words). Where it means something else, there is another row.

    `schema` is its JSON Schema but for the description, which is `meaning`. `origin` says where the value comes from.
    `read` gives the value from an exchange (None: the field is left out). `crashed` gives it from an
    OPEN entry; without, it is copied from there. `slot` names what writes it in templates.py; "caller": the same in all
    records of a caller, written once.
    """

    name: str
    schema: Json
    meaning: str
    origin: str
    kinds: str
    optional: bool = False
    read: Callable[[Any], Any] | None = None
    crashed: Callable[[Json], Any] | None = None
    slot: str = ""


TIME: Final[Json] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_POSITIVE: Final[Json] = {"type": "integer", "minimum": 1}
_INTEGER: Final[Json] = {"type": "integer"}
_SCALE: Final[Json] = {"type": "integer", "minimum": 0, "maximum": 9}
_TEXT: Final[Json] = {"type": "string"}
NAME: Final[Json] = {"type": "string", "minLength": 1}
_FLAG: Final[Json] = {"type": "boolean"}
_UNITS: Final[Json] = {"type": "object", "additionalProperties": _COUNT}
_DELTAS: Final[Json] = {"type": "object", "additionalProperties": _INTEGER}
_TEXTS: Final[Json] = {"type": "object", "additionalProperties": _TEXT}
ID: Final[Json] = {"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{26}$"}


def object_of(fields: Iterable[Field]) -> Json:
    """The JSON Schema of an object with these members and no others."""
    rows = list(fields)
    return {
        "type": "object",
        "properties": {row.name: {**row.schema, "description": row.meaning} for row in rows},
        "required": [row.name for row in rows if not row.optional],
        "additionalProperties": False,
    }


_LINE: Final = object_of((
    Field("model", _TEXT, "what answered, else what was asked for", "answer", ""),
    Field("kinds", _UNITS, "units by kind (tokens); kinds exclude each other", "answer", ""),
    Field("usage", _UNITS, "units by meter of this line, where a record has several lines", "meters", "", True),
))  # fmt: skip
_DELTA_LINE: Final = object_of((
    Field("model", _TEXT, "as in the record that is changed", "operator", ""),
    Field("kinds", _DELTAS, "units to add, by kind", "operator", ""),
    Field("usage", _DELTAS, "units to add, by meter", "operator", "", True),
))  # fmt: skip
_LIMIT: Final = object_of((
    Field("id", NAME, "of the limit", "policy", ""),
    Field("period", _TEXT, "the window's id; empty for rates and slots", "counters", ""),
    Field("used", _INTEGER, "with this exchange, when it was decided", "counters", ""),
    Field("limit", _COUNT, "its amount", "policy", ""),
))  # fmt: skip
_DIGITS: Final = Field("digits", _SCALE, "the scale of the unit: an amount is a "
                       "whole number of 10^-digits of it; absent: 9", "policy", "alert", True)  # fmt: skip
_BALANCE: Final = object_of((
    Field("id", NAME, "of the limit", "policy", ""),
    Field("unit", _TEXT, "of the wallet: a currency, credits and so on", "policy", ""),
    _DIGITS,
    Field("balance", _INTEGER, "left after this exchange, when it was decided; in 10^-digits of the unit", "wallet",
          ""),
))  # fmt: skip
_CHARGE: Final = object_of((
    Field("meter", NAME, "what was charged", "policy", ""),
    Field("model", _TEXT, "of the usage line, where the price depends on it", "answer", "", True),
    Field("units", _INTEGER, "of the meter; below 0 where a correction or a void gives back", "meters", ""),
    Field("amount", _INTEGER, "what they cost, in 10^-digits of the unit", "rating", ""),
))  # fmt: skip


def _decision(*, denied: bool) -> Json:
    return object_of((
        Field("mode", {"enum": ["exact", "leased", "degraded", "local", "shadow"]},
              "exact: by the store; leased: from units reserved ahead; degraded, local: by this worker alone, as the "
              "store did not answer; shadow: a limit in stage shadow or soft would have refused", "decision", ""),
        Field("violated", NAME, "the limit that refused", "decision", "", not denied),
        Field("shadowed", {"type": "array", "items": NAME}, "limits in stage shadow or soft that would have refused",
              "decision", "", True),
        Field("limits", {"type": "array", "items": {"oneOf": [_LIMIT, _BALANCE]}}, "each limit that was checked",
              "counters", ""),
    ))  # fmt: skip


def _customer(facts: Facts) -> str | None:
    return facts.identity.customer if facts.identity is not None else None


def _account(facts: Facts) -> str | None:
    return facts.identity.account if facts.identity is not None else None


def _key_id(facts: Facts) -> str | None:
    return facts.identity.key_id if facts.identity is not None else None


def _plan_since(facts: Facts) -> str | None:
    return (facts.identity.plan_since or None) if facts.identity is not None else None


def _decided(facts: Facts) -> orjson.Fragment | None:
    return orjson.Fragment(decision_text(facts.decision)) if facts.decision is not None else None


_EXCHANGE: Final = "usage unattributed"
_KNOWN: Final = "usage denial"
_REQUEST: Final = "usage unattributed denial"
_CHANGE: Final = "correction void"

FIELDS: Final = (
    # An exchange: who, by which terms, what was asked.
    Field("customer", _TEXT, "who pays", "API key", _KNOWN, read=_customer, slot="caller"),
    Field("account", NAME, "the account that the customer belongs to; by default the customer", "API key", _KNOWN, True,
          _account, lambda known: known.get("account") or known["customer"], "caller"),
    Field("key_id", _TEXT, "the API key", "API key", _KNOWN, read=_key_id, slot="caller"),
    Field("plan_since", NAME, "the last change of the key's plan, RFC 3339; counters went on through it", "API key",
          _KNOWN, True, _plan_since, slot="caller"),
    Field("plan", _TEXT, "the terms, as id@version; empty where nobody is known", "policy", _REQUEST,
          read=lambda facts: facts.plan, slot="caller"),
    Field("route", NAME, "the route's id", "policy", _REQUEST, read=lambda facts: facts.route, slot="caller"),
    Field("method", NAME, "of the request", "request", _REQUEST, read=lambda facts: facts.method, slot="caller"),
    Field("origin", {"enum": ["proxied", "authorized", "ingested"]}, "how the usage came here: through the proxy, as a "
          "decision that another proxy asked for, or as a report of usage elsewhere", "gateway", _REQUEST, True,
          lambda _: "proxied", lambda known: known.get("origin", "proxied"), "caller"),
    Field("path", _TEXT, "in normal form, without the query", "request", _REQUEST, read=lambda facts: facts.path,
          slot="path"),
    Field("status", _COUNT, "what was answered; 499: the client had gone; 0: not known (crashed)", "answer", _REQUEST,
          read=lambda facts: facts.status, crashed=lambda _: 0, slot="status"),
    # Its usage and its end.
    Field("usage", _UNITS, "units by meter, every meter of the route, also 0", "meters", _EXCHANGE,
          read=lambda facts: facts.usage, crashed=lambda known: known["reserved"], slot="usage"),
    Field("quality", {"enum": ["exact", "provider_reported", "estimated", "partial"]}, "provider_reported: tokens are "
          "the AI answer's own figures; estimated: it had none; partial: the exchange did not end as it should, or a "
          "meter could not be computed and gave its default", "meters", _EXCHANGE, read=lambda facts: facts.quality,
          crashed=lambda _: "partial", slot="verdict"),
    Field("billable", _FLAG, "whether it is billed", "policy", _EXCHANGE, read=lambda facts: facts.billable,
          slot="verdict"),
    Field("billable_reason", NAME, "why: a word, or the id of the exclusion that holds", "policy", _EXCHANGE,
          read=lambda facts: facts.billable_reason, slot="verdict"),
    Field("outcome", NAME, "ok, or how it ended: client_gone, upstream_…, tunnel, crashed, withheld, "
          "internal_error (a defect of ours: not billed)", "exchange", _EXCHANGE, read=lambda facts: facts.outcome,
          crashed=lambda _: "crashed", slot="verdict"),
    Field("parent", ID, "the id of the exchange that this one is a part of", "gateway", _REQUEST, True,
          lambda facts: facts.parent or None, slot="details"),
    Field("dims", _TEXTS, "of an AI answer: model (what answered, else what was asked for) and service_tier", "answer",
          _EXCHANGE, read=lambda facts: facts.dims, crashed=lambda _: {}, slot="details"),
    Field("usage_lines", {"type": "array", "items": _LINE}, "of an AI answer: what each billed model used. The "
          "units are in usage too, as far as meters count them", "answer", _EXCHANGE, True,
          lambda facts: facts.usage_lines or None, slot="details"),
    Field("upstream_request_id", NAME, "the id that the upstream gave this request, in X-Request-Id, Request-Id or a "
          "similar field of its answer; its support asks for it", "answer", _EXCHANGE, True,
          lambda facts: facts.upstream_request_id or None, slot="details"),
    Field("client_request_id", NAME, "the X-Request-Id of a proxy in front that trusted_proxies names", "request",
          _REQUEST, True, lambda facts: facts.client_request_id or None, slot="details"),
    Field("attempts", _COUNT, "times the upstream was asked", "exchange", _EXCHANGE, read=lambda facts: facts.attempts,
          crashed=lambda _: 0, slot="attempts"),
    Field("client_disconnected", _FLAG, "the client went before the end", "exchange", _EXCHANGE,
          read=lambda facts: facts.client_disconnected, crashed=lambda _: False, slot="client_disconnected"),
    Field("period_time", TIME, "when the usage was reserved, by the store's clock: the period in which it is counted, "
          "rated and invoiced. Without limits: when the request arrived", "decision", _EXCHANGE, True,
          lambda facts: instant(facts.period_us), slot="period_time"),
    Field("duration_us", _COUNT, "from the request's arrival to the end", "exchange", _REQUEST,
          read=lambda facts: facts.duration_us, slot="number"),
    Field("upstream_us", _COUNT, "from sending to the upstream to the end of its answer", "exchange", _EXCHANGE,
          read=lambda facts: facts.upstream_us, crashed=lambda _: 0, slot="number"),
    Field("bytes_in", _COUNT, "of the request's body", "exchange", _EXCHANGE, read=lambda facts: facts.bytes_in,
          crashed=lambda _: 0, slot="number"),
    Field("bytes_out", _COUNT, "of the answer's body", "exchange", _EXCHANGE, read=lambda facts: facts.bytes_out,
          crashed=lambda _: 0, slot="number"),
    Field("decision", _decision(denied=False), "the limits that were checked, where there are any", "decision",
          _EXCHANGE, True, _decided, slot="decision"),
    Field("decision", _decision(denied=True), "the limits that were checked", "decision", "denial", read=_decided),
    # Denials that have no record of their own.
    Field("customer", _TEXT, "empty: several customers, where too many were denied at once", "API key",
          "denial-summary"),
    Field("plan", _TEXT, "id@version", "policy", "denial-summary"),
    Field("limit", NAME, "the limit that refused", "decision", "denial-summary"),
    Field("reason", NAME, "the type of the problem that was answered, without its prefix", "decision",
          "denial-summary"),
    Field("status", _COUNT, "what was answered", "answer", "denial-summary"),
    Field("count", _POSITIVE, "denials that have no record of their own", "journal", "denial-summary"),
    Field("first", TIME, "when the first of them was", "journal", "denial-summary"),
    Field("last", TIME, "when the last of them was", "journal", "denial-summary"),
    # A change of an earlier record.
    Field("customer", _TEXT, "as in the record that is changed", "operator", _CHANGE),
    Field("account", NAME, "as in the record that is changed", "operator", _CHANGE, True),
    Field("key_id", _TEXT, "as in the record that is changed", "operator", _CHANGE),
    Field("usage", _DELTAS, "units to add, by meter", "operator", _CHANGE),
    Field("usage_lines", {"type": "array", "items": _DELTA_LINE}, "units to add by model, as in usage",
          "operator", _CHANGE, True),
    Field("billable", _FLAG, "whether the record that is changed is billed; absent: it is not stated", "operator",
          _CHANGE, True),
    Field("period_time", TIME, "of the record that is changed: the change belongs to that period", "operator", _CHANGE,
          True),
    Field("reason", NAME, "why", "operator", _CHANGE),
    Field("actor", NAME, "who decided", "operator", _CHANGE),
    # A limit of which a share is used.
    Field("customer", _TEXT, "who pays", "API key", "alert"),
    Field("account", NAME, "the account that the customer belongs to", "API key", "alert", True),
    Field("key_id", _TEXT, "where the limit is counted by key", "API key", "alert", True),
    Field("plan", _TEXT, "id@version", "policy", "alert"),
    Field("limit", NAME, "the limit's id", "policy", "alert"),
    Field("scope", {"enum": ["key", "subject", "customer"]}, "whose use is counted", "policy", "alert"),
    Field("meter", NAME, "what is counted; a balance has a unit instead", "policy", "alert", True),
    Field("unit", NAME, "of a balance; its figures are in 10^-digits of it", "policy", "alert", True),
    _DIGITS,
    Field("period", NAME, "the window's id; of a balance, the grant that began it", "counters", "alert"),
    Field("percent", {"type": "integer", "minimum": 1, "maximum": 100}, "the threshold", "policy", "alert"),
    Field("used", _COUNT, "when the threshold was seen passed", "counters", "alert"),
    Field("amount", _COUNT, "the limit's, or what was granted", "policy", "alert"),
    Field("link", NAME, "where a customer gets more, if the policy has it", "policy", "alert", True),
    # The state of a producer.
    Field("highest", _UNITS, "highest sequence, by stream", "journal", "checkpoint"),
    Field("totals", _UNITS, "units by meter, this epoch, at most 2^63 - 1", "worker", "checkpoint"),
    Field("open_exchanges", _COUNT, "exchanges without a record yet", "worker", "checkpoint"),
    Field("backlog_bytes", _COUNT, "bytes of the journal on this worker's disk", "journal", "checkpoint"),
    Field("unrecorded", _COUNT, "exchanges that on_full: serve served without a record, this epoch", "journal",
          "checkpoint"),
    Field("degraded_s", _COUNT, "seconds in which the store of counters did not answer, this epoch", "worker",
          "checkpoint"),
    Field("policy", _TEXT, "the version of the policy", "policy", "checkpoint"),
    Field("denials", _COUNT, "denials of this epoch, with a record of their own or only counted", "journal",
          "checkpoint", True),
    Field("oldest_open", TIME, "when the oldest open exchange arrived: no later record of this source is of one that "
          "arrived earlier", "journal", "checkpoint", True),
    Field("final", _FLAG, "true: the last record of this source", "worker", "checkpoint", True),
    # The life of a source.
    Field("state", {"enum": ["started", "closed", "retired"]}, "started: it will write records; closed: by a "
          "successor, which closed what was open; retired: by an operator, its machine does not return", "worker",
          "source"),
    Field("about", NAME, "the source that this is about; its own, where it started", "worker", "source"),
    Field("version", NAME, "of the sidecar", "worker", "source"),
    Field("predecessor", NAME, "the source before it in the same place, where one is known", "journal", "source", True),
    Field("highest", _UNITS, "highest sequence by stream of the source that is closed or retired, as far as it is "
          "known", "journal", "source", True),
    Field("reason", NAME, "why it was retired", "operator", "source", True),
    Field("actor", NAME, "who retired it", "operator", "source", True),
    # A change of a wallet.
    Field("customer", NAME, "whose wallet", "wallet", "posting"),
    Field("account", NAME, "the account that the customer belongs to", "wallet", "posting", True),
    Field("unit", NAME, "of the wallet: a currency, credits and so on", "wallet", "posting"),
    Field("digits", _SCALE, "the scale of the unit: an amount is a whole number of 10^-digits of it", "wallet",
          "posting"),
    Field("change", {"enum": ["grant", "void", "expiry", "rollover", "settle", "release"]}, "the kind of the posting; "
          "release: of an exchange that nobody settled more or less came back than it had reserved, by delta", "wallet",
          "posting"),
    Field("delta", _INTEGER, "what is added to the balance; below 0: taken from it", "wallet", "posting"),
    Field("balance", _INTEGER, "after it, less what open exchanges hold", "wallet", "posting"),
    Field("period_time", TIME, "of a settle: of the exchange's record", "wallet", "posting", True),
    Field("grant", NAME, "the id of the grant, of a change of one", "wallet", "posting", True),
    Field("priority", _COUNT, "of a grant: the lowest is spent first", "operator", "posting", True),
    Field("starts", TIME, "of a grant: from when on it counts", "operator", "posting", True),
    Field("expires", TIME, "of a grant: when it ends; absent: never", "operator", "posting", True),
    Field("plan", _TEXT, "of a settle: the terms it was rated by, as id@version", "policy", "posting", True),
    Field("charges", {"type": "array", "items": _CHARGE}, "of a settle: what the exchange cost. Its usage record has "
          "the id in causationid", "rating", "posting", True),
    Field("reason", NAME, "why, where an operator did it", "operator", "posting", True),
    Field("actor", NAME, "who, where an operator did it", "operator", "posting", True),
    # A policy that was loaded.
    Field("policy", NAME, "its version; of a refused one, that of the policy that stays", "policy", "policy"),
    Field("state", {"enum": ["applied", "refused"]}, "refused: it has faults, and the one before it stays", "worker",
          "policy"),
    Field("files", _TEXTS, "SHA-256 of each document, by its file name; of a refused one empty", "policy", "policy"),
    Field("plans", _TEXTS, "SHA-256 of the terms by label (id@version): a label means one thing for ever. More than "
          "5,000 plans are in several records", "policy", "policy"),
    Field("faults", {"type": "array", "items": _TEXT}, "of a refused one", "policy", "policy", True),
    Field("actor", NAME, "who changed it, where that is known", "operator", "policy", True),
    # An operator's act.
    Field("action", NAME, "what was done, such as keys.revoke", "operator", "audit"),
    Field("actor", NAME, "who did it", "operator", "audit"),
    Field("target", NAME, "to what: the kind and the id, such as key/k_7f", "operator", "audit"),
    Field("customer", NAME, "whose it is, where it is a customer's", "operator", "audit", True),
    Field("account", NAME, "the account that the customer belongs to", "operator", "audit", True),
    Field("via", {"enum": ["cli", "api", "console", "file"]}, "how", "operator", "audit"),
    Field("state", {"enum": ["done", "refused"]}, "refused: the actor may not, or it could not be done", "operator",
          "audit"),
    Field("reason", NAME, "why, in the actor's words", "operator", "audit", True),
    Field("before", {"type": "object"}, "the fields that changed, as they were; never a secret", "operator", "audit",
          True),
    Field("after", {"type": "object"}, "the same as they are now", "operator", "audit", True),
)  # fmt: skip


@cache
def fields_of(kind: str) -> tuple[Field, ...]:
    """The fields of the data of records of a kind, in their order."""
    return tuple([field for field in FIELDS if kind in field.kinds.split()])


def read_data(facts: Facts, fields: Iterable[Field]) -> Json:
    """The values of these fields for an exchange, without those that it does not have."""
    values = {field.name: field.read(facts) for field in fields if field.read is not None}
    return {name: value for name, value in values.items() if value is not None}


def crashed_data(kind: str, known: Json) -> Json:
    """The same of an exchange of which only its OPEN entry is known, and `duration_us`, `period_time` and whether it is
    billed.
    """  # noqa: D205
    fields = fields_of(kind)
    values = {each.name: known.get(each.name) if each.crashed is None else each.crashed(known) for each in fields}
    return {name: value for name, value in values.items() if value is not None}
