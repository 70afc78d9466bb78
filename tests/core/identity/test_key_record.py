import pytest

from sidecar.core.identity import Identity, KeyRecord, make_key, read_record

RAW = {"id": "k_1", "hash": "sha256:" + "0" * 64, "customer": "cust-1", "subject": "app-1", "plan": "free"}


def test_a_record_yields_its_identity():
    record, faults = read_record(
        {**RAW, "zone": "Europe/Berlin", "anchor": "2026-01-31", "expires": "2026-12-31T23:59:59.000001Z", "test": True}
    )
    assert faults == []
    assert record is not None
    identity = record.identity()
    assert isinstance(identity, Identity)
    assert (identity.key_id, identity.subject, identity.customer, identity.plan) == ("k_1", "app-1", "cust-1", "free")
    assert identity.anchor_us == 1_769_814_000_000_000  # 2026-01-30T23:00:00Z, midnight in Berlin
    assert identity.expires_us == 1_798_761_599_000_001
    assert identity.test


def test_a_revoked_record_yields_no_identity():
    record, _ = read_record({**RAW, "status": "revoked"})
    assert record is not None
    assert record.identity() is None


def test_an_identity_says_since_when_it_is_on_its_plan():
    since = "2026-11-21T01:03:26Z"
    identity = KeyRecord(**RAW, plan_since=since).identity()
    assert identity is not None
    assert identity.plan_since == since
    assert KeyRecord(**RAW).identity().plan_since == ""


def test_a_record_survives_its_stored_form():
    record = KeyRecord(**RAW, zone="Asia/Tokyo", expires="2026-01-01T00:00:00Z")
    assert read_record(record.stored()) == (record, [])
    assert set(record.stored()) == {*RAW, "zone", "expires"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""), ("id", 7), ("id", "a\nb"), ("id", " a"), ("id", "x" * 257), ("customer", None), ("customer", True),
        ("hash", "sha256:short"), ("hash", "0" * 64), ("hash", "sha256:" + "A" * 64),
        ("hash", "sha256:" + "0" * 64 + "\n"), ("status", "actve"), ("status", ["active"]),
        ("zone", "Mars/Base"), ("zone", "../etc/passwd"), ("zone", ""), ("zone", 1),
        ("anchor", "2026-02-30"), ("anchor", "20260201"), ("anchor", 20260201),
        ("expires", "2026-12-31"), ("expires", "2026-12-31T00:00:00"), ("expires", "soon"), ("expires", 5),
        ("plan_since", "2026-12-31"), ("plan_since", ""), ("plan_since", 5),
        ("test", "yes"), ("test", 1), ("colour", "red"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_record_is_named_by_its_field(field, value):
    record, faults = read_record({**RAW, field: value})
    assert record is None
    assert [name for name, _ in faults] == [field]


def test_all_that_is_wrong_is_said_at_once():
    assert {name for name, _ in read_record({"plan": 7, "odd": 1})[1]} == {
        "id",
        "hash",
        "customer",
        "subject",
        "plan",
        "odd",
    }


# Fails if _is_name does not look at the checksum.
def test_a_credential_in_the_place_of_an_id_is_refused_unseen():
    key = make_key(bytes(20))
    record, faults = read_record({**RAW, "id": key})
    assert record is None
    assert [name for name, _ in faults] == ["id"]
    assert key not in str(faults + [(what,) for _, what in read_record({**RAW, "hash": key, key: key})[1]])


def test_a_record_shows_no_hash():
    record = KeyRecord(**RAW)
    assert "0000" not in repr(record) + str(record)
