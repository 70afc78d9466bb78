import json
from types import SimpleNamespace

import pytest
from jsonschema import Draft202012Validator

from sidecar.app.policy_states import FAULTS, LABELS, applied, refused
from sidecar.core.policy import Hashes
from sidecar.core.record import record_schema
from sidecar.core.record.frame import RECORD_MAX
from sidecar.core.record.statements import statement_record
from tests.app.node import POLICY, node

validator = Draft202012Validator(record_schema())
HASH = "ab" * 32


def policy(plans):
    return SimpleNamespace(version="1a2b3c4d", hashes=Hashes({"p.yaml": HASH}, plans))


def record(state):
    return statement_record(state, b"0" * 26, (1, "//sidecar/local/n/0/1", 1))


@pytest.mark.parametrize("number", [0, 1, LABELS, LABELS + 1, 2 * LABELS + 1])
def test_every_label_is_in_exactly_one_record_and_each_fits_into_the_journal(number):
    # Fails if all labels are in one record: with ten thousand plans Kafka would refuse it.
    plans = {f"{n:0>56}@{n}": HASH for n in range(number)}
    states = list(applied(policy(plans)))
    assert len(states) == max(1, -(-number // LABELS))
    assert {label: digest for state in states for label, digest in state.plans.items()} == plans
    assert all(len(record(state)) < RECORD_MAX for state in states)
    assert validator.is_valid(json.loads(record(states[0])))


def test_a_refusal_names_its_first_faults_and_counts_the_others():
    state = refused(policy({}), ["x" * 100_000] * (FAULTS + 7))
    assert len(state.faults) == FAULTS + 1
    assert state.faults[-1] == "and 7 more"
    assert len(record(state)) < RECORD_MAX
    assert validator.is_valid(json.loads(record(state)))


async def test_a_node_records_what_it_applies_and_what_it_refuses(tmp_path):
    # Fails if each worker records it, or none does, or if a label can be changed while the node runs or is stopped.
    versioned = POLICY.replace("  free:\n", "  free:\n    version: 1\n")
    async with node(tmp_path) as running:
        first = (await running.tell("/status"))[1]["policy"]["version"]
        (tmp_path / "p.yaml").write_text(versioned % (1, 1))
        status = await running.until(lambda status: status["policy"]["version"] != first)
        version = status["policy"]["version"]
        (tmp_path / "p.yaml").write_text(versioned % (9, 9))
        status = await running.until(lambda status: status["policy"]["failed_reloads"])
        assert "free@1 was applied with other content" in status["policy"]["faults"][0]
        (tmp_path / "p.yaml").write_text(versioned.replace("version: 1", "version: 2") % (9, 9))
        await running.until(lambda status: status["policy"]["version"] not in {first, version})
        assert await running.stop() == 0
        records = [json.loads(each) for each in running.records()]
    states = [each for each in records if each["type"] == "sidecar.policy.v1"]
    assert all(validator.is_valid(each) for each in states)
    assert [each["data"]["state"] for each in states] == ["applied", "applied", "refused", "applied"]
    assert [[*each["data"]["plans"]] for each in states[1:]] == [["free@1"], [], ["free@2"]]
    assert states[0]["data"]["files"].keys() == {"p.yaml"}
    assert states[2]["data"]["policy"] == version
    [fault] = states[2]["data"]["faults"]
    assert "free@1" in fault
