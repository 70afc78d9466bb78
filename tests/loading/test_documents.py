import pytest

from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError
from sidecar.loading.documents import keys_outside_customer_terms, keys_with_unknown_plan, load, load_all


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "p.yaml").write_text("plans: { free: { limits: [{ id: a, rate: 5/s, burst: 10 }] } }\n")
    (tmp_path / "keys.yaml").write_text(
        f"keys:\n  - {{ id: k1, hash: 'sha256:{'0' * 64}', customer: c, subject: s, plan: gold }}\n"
    )
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\n")
    return load_settings(tmp_path / "sidecar.yaml", {})


def test_what_is_right_has_a_version_and_its_keys(settings):
    node = load_all(settings)
    assert load(settings).version == node.policy.version
    assert [key.id for key in keys_with_unknown_plan(node.policy, node.keys)] == ["k1"]


def test_a_key_whose_customer_has_terms_on_top_of_another_plan_is_found(settings):
    settings.policies.write_text("plans: { free: {}, gold: {} }\ncustomers: { c: { plan: free } }\n")
    node = load_all(settings)
    assert [(key.id, plan) for key, plan in keys_outside_customer_terms(node.loaded, node.keys)] == [("k1", "free")]
    settings.policies.write_text("plans: { free: {}, gold: {} }\ncustomers: { c: { plan: gold } }\n")
    assert keys_outside_customer_terms(load_all(settings).loaded, node.keys) == []


def test_a_scale_other_than_that_of_the_policy_that_runs_is_refused(settings):
    # Fails if the digits of a unit can be changed by a reload: all wallets in it would be empty.
    plan = "{ currency: credits, prices: { requests: { per_unit: 1 } }, limits: [{ id: c, balance: credits }] }"
    settings.policies.write_text(f"units: {{ credits: {{ digits: 2 }} }}\nplans: {{ gold: {plan} }}\n")
    assert load(settings).scales() == load(settings, {"credits": 2, "usd": 9}).scales() == {"credits": 2}
    with pytest.raises(PolicyError) as caught:
        load(settings, {"credits": 9})
    [fault] = caught.value.faults
    assert (fault.file, fault.line, fault.where) == (str(settings.policies), 1, "units.credits.digits")


# Fails if the setting is left out, or its line: an operator has then to guess which setting asks for the file.
def test_missing_policies_and_keys_are_named_with_their_setting(settings, tmp_path):
    settings.policies.unlink()
    settings.keys.file.unlink()
    with pytest.raises(PolicyError) as caught:
        load_all(settings)
    (first, second), file = map(str, caught.value.faults), tmp_path / "sidecar.yaml"
    why = "cannot be read: No such file or directory: create it, or correct the path"
    assert first == f"{file}:1: policies: {tmp_path}/p.yaml {why}"
    assert second == f"{file}:1: keys.file: {tmp_path}/keys.yaml {why}"


def test_faults_of_policies_and_keys_come_together(settings):
    settings.policies.write_text("plans: nonsense\n")
    settings.keys.file.write_text("nonsense\n")
    with pytest.raises(PolicyError) as caught:
        load(settings)
    assert {fault.file for fault in caught.value.faults} == {str(settings.policies), str(settings.keys.file)}
