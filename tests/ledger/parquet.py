"""Records for a ledger, and files of it that its own writer makes of them."""

from sidecar.core.instants import instant
from tests.edge.ledger.ledgers import load

BASE_US = 1_796_000_000_000_000  # 2026-11-30 00:53:20


def event(kind, source, sequence, data=None, *, id_=None, time_us=BASE_US, cause=None, usage=None, period_us=None):
    """A record as far as the ledger reads it."""
    data = dict(data or {})
    if usage is not None:
        data = {"customer": "acme", "usage": usage, "billable": True} | data
    if kind in {"denial", "alert"} or "usage" in data:
        data.setdefault("customer", "acme")
    if period_us is not None:
        data["period_time"] = instant(period_us)
    envelope = {"causationid": cause} if cause is not None else {}
    return {
        "type": f"sidecar.{kind}.v1", "source": source, "sequence": f"{sequence:018d}",
        "id": id_ or f"{source} {sequence}", "time": instant(time_us), "data": data, **envelope,
    }  # fmt: skip


def checkpoint(source, sequence, time_us, totals=None, *, denials=0, **more):
    data = {"highest": {"records": sequence - 1, "denials": denials}, "totals": totals or {}, **more}
    return event("checkpoint", source, sequence, data, time_us=time_us)


def rejected():
    return b"x"


def write(folder, records, *, topic="usage.records", part=0):
    """One file of a partition that holds `records`, behind those that it has."""
    [loaded] = load(folder, records, topic=topic, part=part)
    return folder / topic / loaded.file.name
