"""Mirrors sidecar/keys/imports.py; tests/cli/test_key_files.py has what a user sees of it."""

import json

import pytest

from sidecar.core.errors import PolicyError
from sidecar.core.identity import KeyRecord, make_key
from sidecar.keys.imports import Options, plan_import
from sidecar.keys.registers import HashedKeys

PEPPER = b"salt"
NOW = "2026-11-21T01:03:26Z"


class Registered:
    """A register in memory."""

    def __init__(self, *records):
        self.all = records

    def matching(self, ids, hashes):
        return [record for record in self.all if record.id in ids or record.hash in hashes]


def keys(*records):
    return HashedKeys(Registered(*records), PEPPER)


def record(id_, key, **fields):
    return KeyRecord(id_, keys().hash_of(key), **{"customer": "c", "subject": "c", "plan": "free", **fields})


def plan(text, *registered, **options):
    given = {"plans": {"free", "pro"}, "now": NOW, "make_id": lambda: "made", **options}
    return plan_import("f", text, keys(*registered), Options(**given))


def faults(text, *registered, **options):
    with pytest.raises(PolicyError) as caught:
        plan(text, *registered, **options)
    return [str(fault) for fault in caught.value.faults]


def test_a_key_is_hashed_and_what_is_left_out_is_made():
    done = plan("key,customer,plan\nfirst-key-1,c,free\n")
    assert done.new == [record("made", "first-key-1")]
    assert (done.changed, done.unchanged, done.made) == ([], 0, {})


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("k,short,free", "f:2: key: has fewer than 8 characters"),
        ("k,a b\tc d e,free", "f:2: key: has blanks around it, or control characters"),
        ("k,msk_0000000000000000000000000000000000,free", "f:2: key: begins as keys of `sidecar keys new` do"),
        ("k,,free", "f:2: key: is missing, and so is hash"),
        ("k,first-key-1,", "f:2: plan: is missing"),
        ("k,first-key-1,fre", "f:2: plan: is not defined by the policies; did you mean 'free'?"),
        ("o_1,first-key-1,free", "f:2: id: is that of another key"),
        ("k,other-key-1,free", "f:2: id: is not the one with which this key is registered already"),
        ("o_1,other-key-1,pro", "f:2: plan: is not that of the registered key: --replace changes it"),
    ],
)
def test_a_wrong_row_is_a_fault(row, fault):
    (only,) = faults(f"id,key,plan,customer\n{row},c\n", record("o_1", "other-key-1"))
    assert only.startswith(fault)


def test_a_key_with_a_right_checksum_is_taken():
    assert len(plan(f"key,customer,plan\n{make_key(bytes(20))},c,free\n").new) == 1


@pytest.mark.parametrize(("second", "column"), [("k_1,second-key-1", "id"), ("k_2,first-key-1", "key")])
def test_two_rows_with_one_id_or_key_are_a_fault(second, column):
    text = f"id,key,customer,plan\nk_1,first-key-1,c,free\n{second},c,free\n"
    assert faults(text) == [f"f:3: {column}: is the same as in line 2"]


def test_two_keys_with_one_id_on_one_line_are_a_fault():
    # Fails if a line stands for a key: compact JSON has all of them on one.
    first, second = (
        {"id": "k_1", "key": f"{name}-key-1", "customer": "c", "plan": "free"} for name in ("one", "other")
    )
    text = json.dumps([first, second])
    assert faults(text) == ["f:1: id: is the same as in an earlier key of this line"]


# Fails if a change of plan keeps the time of the one before.
def test_a_changed_plan_has_the_time_of_its_change():
    before = record("o_1", "other-key-1", plan_since="2025-01-01T00:00:00Z")
    (changed,) = plan("key,customer,plan\nother-key-1,c,pro\n", before, replace=True).changed
    assert changed.plan_since == NOW
    text = "key,customer,plan,plan_since\nother-key-1,c,pro,2026-01-01T00:00:00Z\n"
    assert plan(text, before, replace=True).changed[0].plan_since == "2026-01-01T00:00:00Z"


# Fails if the plan of a registered key is held against the policies where it does not change.
def test_a_registered_key_may_keep_a_plan_that_is_not_defined():
    assert plan("key,customer,plan\nother-key-1,c,old\n", record("o_1", "other-key-1", plan="old")).unchanged == 1


def test_keys_are_made_only_for_keys_that_are_not_registered():
    done = plan("id,customer,plan\no_1,c,free\nk_2,c,free\n", record("o_1", "other-key-1"), make_key=lambda _: "m" * 9)
    assert (done.unchanged, done.new, done.made) == (1, [record("k_2", "m" * 9)], {"k_2": "m" * 9})


def test_values_of_json_that_are_not_text_are_faults():
    assert faults('{"key": 7, "customer": "c", "plan": "free"}') == ["f:1: key: is not text"]
    assert "f:1: has an unknown field; did you mean 'customer'?" in faults('{"custmer": "c", "key": "first-key-1"}')
    columns = {each.split(": ")[1] for each in faults('{"hash": ["x"], "id": 3, "customer": null, "plan": {}}')}
    assert columns == {"id", "hash", "customer", "subject", "plan"}
