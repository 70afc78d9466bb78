"""An import of API keys: what it changes in the register, or all of its faults. Nothing is written here.

A row has the fields of a key, and either `key` (the key itself, of which only the hash is stored) or `hash`. A fault
names line and column, and repeats no value: a key in the wrong column must not get into a log.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.config.document import did_you_mean
from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import DEFAULTS, KeyRecord, read_record
from sidecar.keys.registers import credential_fault
from sidecar.keys.tables import COLUMNS, Row, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sidecar.keys.registers import HashedKeys


class Options(NamedTuple):
    """Options of an import. `plans`: the defined plans, None where they are not checked. `now`: the time of a change.

    `make_key` (a test key or not) and `make_id` make what a row leaves out; without `make_key` a row has a key or a
    hash. `replace`: registered keys may change.
    """

    plans: Collection[str] | None
    now: str
    make_id: Callable[[], str]
    make_key: Callable[[bool], str] | None = None
    replace: bool = False


class Import(NamedTuple):
    """The changes of an import. `made`: the keys that were made for rows, by id."""

    new: list[KeyRecord]
    changed: list[KeyRecord]
    unchanged: int
    made: dict[str, str]


def plan_import(file: str, text: str, keys: HashedKeys, options: Options) -> Import:
    """The changes that the keys of `text` make. PolicyError: every fault of every row."""
    rows, faults = read_rows(file, text)
    return _Planner(file, keys, options, faults).plan(rows)


class _Planner:
    def __init__(self, file: str, keys: HashedKeys, options: Options, faults: list[Fault]) -> None:
        self._file = file
        self._keys = keys
        self._options = options
        self._faults = faults
        self._first: dict[str, tuple[int, KeyRecord]] = {}  # the line and the key of an id or a hash, by itself
        self._result = Import([], [], 0, {})
        self._hint = cache(lambda plan: did_you_mean(plan, options.plans or ()))

    def plan(self, rows: Sequence[Row]) -> Import:
        hashed = [Row(row.line, values) for row in rows if (values := self._hashed(row)) is not None]
        ids = {values["id"] for _, values in hashed if isinstance(values.get("id"), str)}
        hashes = {values["hash"] for _, values in hashed if isinstance(values.get("hash"), str)}
        registered = self._keys.register.matching(ids, hashes)
        by_id, by_hash = {each.id: each for each in registered}, {each.hash: each for each in registered}
        unchanged = 0
        for line, values in hashed:
            same_key = by_hash.get(str(values.get("hash")))
            values.setdefault("id", same_key.id if same_key is not None else self._options.make_id())
            before = by_id.get(str(values["id"]))
            if same_key is not None and same_key is not before:
                self._fault(line, "id", "is not the one with which this key is registered already")
            elif self._record(line, values, before) is before:
                unchanged += before is not None
        if self._faults:
            raise PolicyError(sorted(self._faults, key=lambda fault: fault.line))
        return self._result._replace(unchanged=unchanged)

    def _hashed(self, row: Row) -> dict[str, Any] | None:
        """The row with the hash of its key in place of the key. None: it has no valid key."""
        values = dict(row.values)
        key = values.pop("key", None)
        if unknown := [name for name in values if name not in COLUMNS]:
            self._fault(row.line, "", f"has an unknown field; {did_you_mean(unknown[0], COLUMNS)}")
        elif key is not None and "hash" in values:
            self._fault(row.line, "key", "and hash exclude each other: give one of them")
        elif key is None and "hash" not in values and self._options.make_key is None:
            self._fault(row.line, "key", "is missing, and so is hash: give one of them, or use --make-keys")
        elif key is not None and (what := credential_fault(key) if isinstance(key, str) else "is not text"):
            self._fault(row.line, "key", what)
        else:
            return values if key is None else values | {"hash": self._keys.hash_of(key)}
        return None

    def _record(self, line: int, values: dict[str, Any], before: KeyRecord | None) -> KeyRecord | None:
        """The key of a row; `before` where it is not changed, None where it is wrong."""
        if before is None:
            values.setdefault("subject", values.get("customer"))
            made = self._make_key(values) if "hash" not in values else ""
        elif values.get("hash", before.hash) != before.hash:
            self._fault(line, "id", "is that of another key: give it a new id, or use `sidecar keys rotate`")
            return None
        else:
            values = before.stored() | values
            made = ""
            if values["plan"] != before.plan and values.get("plan_since", "") == before.plan_since:
                values["plan_since"] = self._options.now
        given = {name: value for name, value in values.items() if value is not None and value != DEFAULTS[name]}
        record, faults = read_record(given)
        for name, what in faults:
            self._fault(line, name, what)
        if record is None or self._is_twice(line, record) or self._lacks_plan(line, record, before):
            return None
        if record == before:
            return before
        self._note(line, record, before, made)
        return record

    def _make_key(self, values: dict[str, Any]) -> str:
        assert self._options.make_key is not None  # noqa: S101 - `_hashed` refuses the other case
        made = self._options.make_key(values.get("test") is True)
        values["hash"] = self._keys.hash_of(made)
        return made

    def _note(self, line: int, record: KeyRecord, before: KeyRecord | None, made: str) -> None:
        if before is None:
            self._result.new.append(record)
            self._result.made.update({record.id: made} if made else {})
        elif self._options.replace:
            self._result.changed.append(record)
        else:
            differing = next(name for name in DEFAULTS if getattr(record, name) != getattr(before, name))
            self._fault(line, differing, "is not that of the registered key: --replace changes it")

    def _is_twice(self, line: int, record: KeyRecord) -> bool:
        for name in ("id", "hash"):
            first, before = self._first.setdefault(f"{name} {getattr(record, name)}", (line, record))
            if before is not record:
                where = f"line {first}" if first != line else "an earlier key of this line"
                self._fault(line, "key" if name == "hash" else name, f"is the same as in {where}")
                return True
        return False

    def _lacks_plan(self, line: int, record: KeyRecord, before: KeyRecord | None) -> bool:
        plans = self._options.plans
        if plans is None or record.plan in plans or (before is not None and before.plan == record.plan):
            return False
        self._fault(line, "plan", f"is not defined by the policies; {self._hint(record.plan)}")
        return True

    def _fault(self, line: int, column: str, what: str) -> None:
        self._faults.append(Fault(self._file, line, column, what))
