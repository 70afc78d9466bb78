import json


def test_a_good_configuration_is_status_0_and_told(sidecar, folder):
    status, out, err = sidecar("check", "-c", "sidecar.yaml")
    assert (status, err) == (0, "")
    assert "counters in memory" in out
    assert out.endswith("good\n")


def test_json_has_every_limit_with_its_bound(sidecar, folder):
    status, out, _ = sidecar("check", "-c", "sidecar.yaml", "--json")
    found = json.loads(out)
    assert status == 0
    assert {limit["id"]: limit["says"] for limit in found["limits"]} == {
        "burst": "5 per s, 10 at once",
        "monthly": "10000 per month",
    }
    assert all(limit["over_by_at_most"] == 0 for limit in found["limits"])
    assert found["warnings"] == []


def test_a_key_of_a_plan_that_is_not_there_is_a_warning(sidecar, folder):
    (folder / "keys.yaml").write_text(
        f"keys:\n  - {{ id: k1, hash: 'sha256:{'0' * 64}', customer: c, subject: s, plan: gold }}\n"
    )
    status, _, err = sidecar("check", "-c", "sidecar.yaml")
    assert status == 0
    assert err == "warning: key k1: plan 'gold' is not defined: refused\n"


def test_kafka_that_does_not_answer_is_a_warning_not_a_fault(sidecar, folder):
    status, _, err = sidecar("check", "-c", "sidecar.yaml", SIDECAR_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert status == 0
    assert err.startswith("warning: kafka: its topics could not be looked at: ")
