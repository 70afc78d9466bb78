"""Files of a ledger as the contract has them, made of records: a row for each meter, and the copies marked."""

import json

import duckdb

from sidecar.core.record.text import instant

TYPES = {
    "part": "INTEGER", "offset": "BIGINT", "source": "VARCHAR", "sequence": "BIGINT", "id": "VARCHAR",
    "kind": "VARCHAR",
    "cause": "VARCHAR", "copy": "BOOLEAN", "first": "BOOLEAN", "time_us": "BIGINT", "period_us": "BIGINT",
    "customer": "VARCHAR", "origin": "VARCHAR", "billable": "BOOLEAN", "reason": "VARCHAR", "line": "SMALLINT",
    "model": "VARCHAR", "meter": "VARCHAR", "units": "BIGINT", "data": "VARCHAR", "fault": "VARCHAR",
}  # fmt: skip
BASE_US = 1_796_000_000_000_000  # 2026-11-30 00:53:20


def event(kind, source, sequence, data=None, *, id_=None, time_us=BASE_US, cause=None, usage=None, period_us=None):
    """A record as far as the ledger's rows need it."""
    data = dict(data or {})
    if usage is not None:
        data = {"customer": "acme", "usage": usage, "billable": True} | data
    if period_us is not None:
        data["period_time"] = instant(period_us)
    return {
        "type": f"sidecar.{kind}.v1", "source": source, "sequence": sequence, "id": id_ or f"{source} {sequence}",
        "time_us": time_us, "period_us": time_us if period_us is None else period_us, "cause": cause, "data": data,
    }  # fmt: skip


def checkpoint(source, sequence, time_us, totals=None, *, denials=0, **more):
    data = {"highest": {"records": sequence - 1, "denials": denials}, "totals": totals or {}, **more}
    return event("checkpoint", source, sequence, data, time_us=time_us)


def rejected(fault="not JSON"):
    return {"type": "rejected", "fault": fault}


def rows(records, known=frozenset(), part=0, first_offset=0):
    known = set(known)
    made = []
    for offset, record in enumerate(records, first_offset):
        base = dict.fromkeys(TYPES) | {"part": part, "offset": offset, "copy": False, "first": True}
        if record["type"] == "rejected":
            made.append(base | {"kind": "rejected", "fault": record["fault"], "data": "x"})
            continue
        kind, data = record["type"].split(".")[1], record["data"]
        is_change = kind in {"correction", "void"}
        base |= {name: record[name] for name in ("source", "sequence", "id", "cause", "time_us", "period_us")}
        base |= {"kind": kind, "copy": record["id"] in known, "origin": data.get("origin")}
        base |= {"billable": data.get("billable"), "reason": data.get("reason") if is_change else None}
        known.add(record["id"])
        if kind not in {"usage", "unattributed"}:
            base["data"] = json.dumps(data)
        usage = data.get("usage") or {None: None}
        for number, (meter, units) in enumerate(sorted(usage.items(), key=str)):
            made.append(base | {"first": not number, "line": 0, "meter": meter, "units": units})
    return made


def write(folder, records, *, topic="usage.records", part=0, first=0, known=frozenset()):
    """One file of a partition that holds `records` from the offset `first` on."""
    path = folder / topic / f"p{part:04}.{first:018}-{first + len(records):018}.parquet"  # a marker takes the last one
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows(records, known, part, first)))
    columns = "{" + ", ".join(f"'{name}': '{type_}'" for name, type_ in TYPES.items()) + "}"
    duckdb.sql(f"COPY (FROM read_json('{lines}', columns = {columns}, format = 'newline_delimited')) TO '{path}'")
    lines.unlink()
    return path
