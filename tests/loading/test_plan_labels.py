import os
import re

import pytest

from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError
from sidecar.loading.documents import load
from sidecar.loading.plan_labels import FILE, known_labels, remember_labels

METERS = "meters: {{ calls: {{ count: {units} }}, other: {{ count: 1 }} }}\n"
LIMIT = "{{ id: monthly, meter: calls, quota: {amount}/month, per_seat: true }}"
PLAN = f"plans:\n  pro:\n    version: 3\n    limits: [{LIMIT}]\n"
CUSTOMER = (
    "customers:\n  acme: {{ plan: pro, version: a-1, seats: {seats}, prices: {{ calls: {{ per_unit: {price} }} }} }}\n"
)


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\njournal: { dir: j }\n")
    (tmp_path / "j").mkdir()
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    settings = load_settings(tmp_path / "sidecar.yaml", {})

    def apply(*, units=1, amount=100, seats=1, price=2, text=METERS + PLAN + CUSTOMER):
        text = text.replace("    limits: [", "    currency: usd\n    limits: [")
        settings.policies.write_text(text.format(units=units, amount=amount, seats=seats, price=price))
        source = load(settings)
        remember_labels(settings.journal.dir, source.hashes)
        return source

    apply.directory = settings.journal.dir
    return apply


def fault_of(call, **changed):
    with pytest.raises(PolicyError) as caught:
        call(**changed)
    return caught.value.faults


def test_a_label_with_other_content_is_refused_with_both_hashes_and_its_line(policy):
    # Fails if a changed amount under the same version is applied: invoices would name terms that were never sold.
    before = policy().hashes.plans["pro@3"]
    [own, plan] = sorted(fault_of(policy, amount=101), key=lambda fault: -fault.line)
    assert (plan.line, plan.where) == (4, "plans.pro.version")
    then, now = re.search(r"SHA-256 ([0-9a-f]{12})… then, ([0-9a-f]{12})… now", plan.what).groups()
    assert before.startswith(then)
    assert then != now
    assert "give it a new version" in plan.what
    assert own.where == "customers.acme.version"  # its terms extend the plan's
    assert known_labels(policy.directory)["pro@3"] == before


@pytest.mark.parametrize(
    ("changed", "labels"),
    [
        ({"units": 2}, {"pro@3", "pro@3+a-1"}),  # the plan counts other units by the same name
        ({"price": 3}, {"pro@3+a-1"}),
        ({"seats": 7}, set()),  # seats are no terms
        ({"text": "# only a comment\n" + METERS + PLAN + CUSTOMER}, set()),
        ({"text": METERS.replace("other: {{ count: 1 }}", "other: {{ count: 9 }}") + PLAN + CUSTOMER}, set()),
        ({"text": METERS + PLAN.replace("version: 3", "version: 4") + CUSTOMER, "amount": 101}, set()),
        ({"text": METERS + PLAN.replace("version: 3\n", "alert_: 1\n").replace("    alert_: 1\n", "") + CUSTOMER,
          "amount": 5}, set()),  # without a version, a label is the hash of its content
    ],
)  # fmt: skip
def test_what_is_sold_is_content_and_the_rest_is_not(policy, changed, labels):
    # Fails if meters are left out of the hash, or if seats are in it.
    policy()
    if not labels:
        policy(**changed)
        return
    assert {fault.what.partition(" ")[0] for fault in fault_of(policy, **changed)} == labels


def test_a_label_that_comes_back_with_its_old_content_is_right(policy):
    policy()
    policy(text=METERS + PLAN.replace("version: 3", "version: 4") + CUSTOMER, amount=7)
    policy()
    assert set(known_labels(policy.directory)) == {"pro@3", "pro@3+a-1", "pro@4", "pro@4+a-1"}


def test_labels_that_are_hashes_are_not_remembered(policy):
    # Fails if they are: a policy that is edited a thousand times would have a thousand labels on disk.
    for amount in range(1, 4):
        policy(text=METERS + PLAN.replace("    version: 3\n", ""), amount=amount)
    assert not (policy.directory / FILE).exists()


@pytest.mark.parametrize("held", [b"[]", b"{", b'{"pro@3": 1}', b"\xff"])
def test_a_file_of_labels_that_holds_something_else_is_named(policy, held):
    (policy.directory / FILE).write_bytes(held)
    [fault] = fault_of(policy)
    assert fault.file == str(policy.directory / FILE)
    assert "restore it, or remove it" in fault.what


def test_a_file_of_labels_is_replaced_as_a_whole(policy, monkeypatch):
    policy()
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        policy(text=METERS + PLAN.replace("version: 3", "version: 4"))
    assert set(known_labels(policy.directory)) == {"pro@3", "pro@3+a-1"}
