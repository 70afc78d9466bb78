"""The units that counters of windows should have: sums of a ledger's rows by caller, meter and window.

`exchanges` has a row for each usage record since a time, with the number of its caller and its class
(core/billing/open_counters.py). A correction or void counts as its original does, whatever its own row says, and not
at all where the original is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from sidecar.core.billing.open_counters import BILLABLE, EXCLUDED, NOT_BILLABLE, Caller, OpenCounter
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.schema import CHANGES, text

_CHANGES: Final = ", ".join(map(text, CHANGES))
_CALLER: Final = "customer, subject, key_id, plan, route, limits"
# A decision without limits was made without the counters where its mode says so; then the policy says what counted.
_LIMITS: Final = """CASE WHEN decision IS NULL THEN ''
    WHEN json_array_length(decision, '$.limits') = 0 AND decision->>'$.mode' IN ('degraded', 'local') THEN ''
    ELSE to_json(json_extract_string(decision, '$.limits[*].id'))::VARCHAR END"""
# A withheld record was given back at once. Without a decision nothing was counted, unless its worker was killed.
_EXCHANGES: Final = f"""CREATE OR REPLACE TEMP TABLE exchanges AS
    SELECT id, period_us, coalesce(customer, '') AS customer, coalesce(subject, customer, '') AS subject,
        coalesce(key_id, '') AS key_id, coalesce(plan, '') AS plan, coalesce(route, '') AS route, {_LIMITS} AS limits,
        CASE WHEN billable THEN {BILLABLE} WHEN list_contains($2::VARCHAR[], reason) THEN {EXCLUDED}
            ELSE {NOT_BILLABLE} END AS class
    FROM counted WHERE kind = 'usage' AND "first" AND NOT "copy" AND period_us >= $1
        AND outcome IS DISTINCT FROM 'withheld' AND (decision IS NOT NULL OR outcome = 'crashed')"""
_CALLERS: Final = f"""CREATE OR REPLACE TEMP TABLE callers AS
    SELECT (row_number() OVER () - 1)::INTEGER AS caller, * FROM
    (SELECT DISTINCT {_CALLER} FROM exchanges)"""
_NUMBERED: Final = f"""CREATE OR REPLACE TEMP TABLE exchanges AS
    SELECT id, period_us, class, caller FROM exchanges JOIN callers USING ({_CALLER})"""
_WANTED: Final = """CREATE OR REPLACE TEMP TABLE wanted AS
    SELECT unnest($1::INTEGER[]) AS caller, unnest($2::INTEGER[]) AS counter, unnest($3::VARCHAR[]) AS meter,
        unnest($4::BIGINT[]) AS start_us, unnest($5::BIGINT[]) AS end_us, unnest($6::INTEGER[]) AS most"""
_SUMS: Final = f"""SELECT w.counter, sum(u.units)
    FROM counted u
    JOIN exchanges e ON e.id = CASE WHEN u.kind IN ({_CHANGES}) THEN u.cause ELSE u.id END
    JOIN wanted w ON w.caller = e.caller AND w.meter = u.meter
    WHERE u.kind IN ('usage', {_CHANGES}) AND NOT u."copy" AND u.period_us >= $1
        AND e.period_us >= w.start_us AND e.period_us < w.end_us AND e.class <= w.most
    GROUP BY 1"""
_UNKNOWN: Final = f"""SELECT count(DISTINCT id) FROM counted
    WHERE kind IN ({_CHANGES}) AND NOT "copy" AND period_us >= $1
        AND cause NOT IN (SELECT id FROM counted WHERE kind = 'usage' AND period_us >= $1)"""


def choose_rows(engine: Engine, customer: str, more: str = "") -> None:
    """Make the relation `counted`: the rows of the ledger and of `more` (a relation), of one customer or ("") all.

    A record of `more` that the ledger has is left out.
    """
    where = f"WHERE customer = {text(customer)}" if customer else ""
    also = f"UNION ALL BY NAME SELECT * FROM {more} {where}" if more else ""
    engine.run(f"CREATE OR REPLACE TEMP VIEW counted AS SELECT * FROM ledger {where} {also}")


def find_callers(engine: Engine, since_us: int, exclusions: Iterable[str]) -> list[Caller]:
    """The callers of the records since a time, in an order. `exclusions` are the reasons of those that are excluded."""
    engine.run(_EXCHANGES, [since_us, list(exclusions)])
    engine.run(_CALLERS)
    engine.run(_NUMBERED)
    rows = engine.run(f"SELECT {_CALLER} FROM callers ORDER BY caller")
    return [
        Caller(customer, subject, key_id, plan, route, tuple(orjson.loads(limits)) if limits else None)
        for customer, subject, key_id, plan, route, limits in rows
    ]


def sum_units(engine: Engine, since_us: int, wanted: Sequence[tuple[int, int, OpenCounter]]) -> dict[int, int]:
    """The units of counters by their numbers. `wanted`: (the number of a caller, that of a counter, the counter)."""
    rows = [(caller, number, each.meter, each.start_us, each.end_us, each.most) for caller, number, each in wanted]
    engine.run(_WANTED, [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 6)
    return {number: int(units) for number, units in engine.run(_SUMS, [since_us])}


def unknown_originals(engine: Engine, since_us: int) -> int:
    """Corrections and voids that count nothing, because their original is not there."""
    return int(engine.run(_UNKNOWN, [since_us])[0][0])
