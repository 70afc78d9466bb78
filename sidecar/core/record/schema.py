"""The JSON Schema (2020-12) of every kind of record: what a consumer may rely on, and all that a record may hold.

Nothing else passes: a field that is not named here is a fault, so that what is personal cannot slip in unseen. Fields
are only ever added; whatever changes a meaning is a new version of the type.
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.core.record.forms import SCHEMA_STEM

Json = dict[str, Any]

_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_TEXT: Final[Json] = {"type": "string"}
_NAME: Final[Json] = {"type": "string", "minLength": 1}
_FLAG: Final[Json] = {"type": "boolean"}

_ENVELOPE: Final[dict[str, Json]] = {
    "specversion": {"const": "1.0"},
    "source": {**_NAME, "description": "//sidecar/region/node/worker/epoch; denials have /denials after it"},
    "id": {"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{26}$"},
    "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"},
    "sequence": {"type": "string", "pattern": r"^\d{18}$", "description": "numbers a source without gaps, from 1"},
    "dataschema": {"type": "string", "format": "uri"},
}
_TRACE: Final[dict[str, Json]] = {
    "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"}
}
_WHO: Final[dict[str, Json]] = {"subject": _NAME, "partitionkey": {**_NAME, "description": "the customer"}}
_CAUSE: Final[dict[str, Json]] = {"causationid": {**_NAME, "description": "the id of the record it corrects"}}

_CUSTOMER: Final[dict[str, Json]] = {"customer": _TEXT, "key_id": _TEXT}
_SINCE: Final[dict[str, Json]] = {
    "plan_since": {**_NAME, "description": "the last change of plan, RFC 3339: counters went on through it"}
}
_REQUEST: Final[dict[str, Json]] = {
    "plan": {**_TEXT, "description": "id@version, or empty where nobody is known"},
    "route": _NAME,
    "method": _NAME,
    "path": {**_TEXT, "description": "in normal form, without the query"},
    "status": {**_COUNT, "description": "what was answered; 499: the client had gone; 0: never known (crashed)"},
    "duration_us": _COUNT,
}
_USED: Final[dict[str, Json]] = {
    "usage": {"type": "object", "additionalProperties": _COUNT, "description": "units by meter"},
    "quality": {"enum": ["exact", "provider_reported", "estimated", "partial"]},
    "billable": _FLAG,
    "billable_reason": _NAME,
    "outcome": {**_NAME, "description": "ok, or how it ended: client_gone, upstream_…, crashed, tunnel and so on"},
    "dims": {"type": "object", "additionalProperties": _TEXT, "description": "such as model and service_tier"},
    "upstream_us": _COUNT,
    "bytes_in": {**_COUNT, "description": "of the request's body"},
    "bytes_out": {**_COUNT, "description": "of the answer's body"},
    "attempts": {**_COUNT, "description": "times the upstream was asked"},
    "client_disconnected": _FLAG,
}
_DELTA: Final[dict[str, Json]] = {
    "usage": {"type": "object", "additionalProperties": {"type": "integer"}, "description": "units to add, by meter"},
    "reason": _NAME,
    "actor": {**_NAME, "description": "who decided"},
}
_CHECKPOINT: Final[dict[str, Json]] = {
    "highest": {"type": "object", "additionalProperties": _COUNT, "description": "highest sequence, by stream"},
    "totals": {"type": "object", "additionalProperties": _COUNT, "description": "units by meter, this epoch"},
    "open_exchanges": _COUNT,
    "backlog_bytes": {**_COUNT, "description": "bytes of the journal on this worker's disk"},
    "unrecorded": {**_COUNT, "description": "entries that on_full: serve let go unwritten, this epoch"},
    "degraded_s": {**_COUNT, "description": "seconds in which the store of counters did not answer, this epoch"},
    "policy": _TEXT,
}
_LIMIT: Final[dict[str, Json]] = {
    "id": _NAME,
    "period": {**_TEXT, "description": "the window's id; empty for rates and slots"},
    "used": {"type": "integer", "description": "with this exchange, as it was decided"},
    "limit": _COUNT,
}
_BALANCE: Final[dict[str, Json]] = {
    "id": _NAME,
    "unit": {**_TEXT, "description": "of the wallet: a currency, credits and so on"},
    "balance": {"type": "integer", "description": "nano-units left after this exchange, as it was decided"},
}
_ALERT: Final[dict[str, Json]] = {
    "customer": _TEXT,
    "key_id": {**_TEXT, "description": "where the limit is counted by key"},
    "plan": {**_TEXT, "description": "id@version"},
    "limit": {**_NAME, "description": "the limit's id"},
    "scope": {"enum": ["key", "subject", "customer"], "description": "whose use is counted"},
    "meter": {**_NAME, "description": "what is counted; a balance has a unit instead"},
    "unit": {**_NAME, "description": "of a balance; its figures are in billionths of it"},
    "period": {**_NAME, "description": "the window's id; of a balance, the grant that began it"},
    "percent": {"type": "integer", "minimum": 1, "maximum": 100},
    "used": {**_COUNT, "description": "as it stood when the threshold was seen passed"},
    "amount": {**_COUNT, "description": "the limit's, or what was granted"},
    "link": {**_NAME, "description": "where more is to be had, if the policy says so"},
}


def _decision(*, denied: bool) -> Json:
    fields = {
        "mode": {"enum": ["exact", "leased", "degraded", "local", "shadow"]},
        "violated": {**_NAME, "description": "the limit that refused"},
        "shadowed": {
            "type": "array",
            "items": _NAME,
            "description": "limits in stage shadow or soft that would have refused",
        },
        "limits": {"type": "array", "items": {"oneOf": [_object(_LIMIT), _object(_BALANCE)]}},
    }
    return _object(fields, optional=("shadowed",) if denied else ("shadowed", "violated"))


def _object(fields: dict[str, Json], optional: tuple[str, ...] = ()) -> Json:
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _event(kind: str, envelope: dict[str, Json], data: Json) -> Json:
    const = {"type": {"const": f"sidecar.{kind}.v1"}, "dataschema": {"const": f"{SCHEMA_STEM}{kind}.v1.json"}}
    return _object({**_ENVELOPE, **const, **envelope, **_TRACE, "data": data}, optional=("traceparent",))


def record_schema() -> Json:
    """A schema that each record of ours meets by exactly one of its kinds."""
    who = {**_CUSTOMER, **_SINCE}
    usage = _object({**who, **_REQUEST, **_USED, "decision": _decision(denied=False)}, ("plan_since", "decision"))
    unattributed = _object({**_REQUEST, **_USED, "decision": _decision(denied=False)}, ("decision",))
    denial = _object({**who, **_REQUEST, "decision": _decision(denied=True)}, ("plan_since",))
    change = _object({**_CUSTOMER, **_DELTA})
    kinds = {
        "usage": _event("usage", _WHO, usage),
        "unattributed": _event("unattributed", {}, unattributed),
        "denial": _event("denial", _WHO, denial),
        "correction": _event("correction", {**_WHO, **_CAUSE}, change),
        "void": _event("void", {**_WHO, **_CAUSE}, change),
        "alert": _event("alert", _WHO, _object(_ALERT, ("key_id", "meter", "unit", "link"))),
        "checkpoint": _event("checkpoint", {"partitionkey": _NAME}, _object(_CHECKPOINT)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{SCHEMA_STEM}record.v1.json",
        "title": "A record of the metering sidecar: CloudEvents 1.0, structured JSON",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds],
        "$defs": kinds,
    }
