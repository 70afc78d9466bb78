import pytest

from sidecar.app.loading import load, load_all, mistermed, planless
from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError


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
    assert [key.id for key in planless(node.policy, node.keys)] == ["k1"]


def test_a_key_whose_customer_has_terms_on_top_of_another_plan_is_found(settings):
    settings.policies.write_text("plans: { free: {}, gold: {} }\ncustomers: { c: { plan: free } }\n")
    node = load_all(settings)
    assert [(key.id, plan) for key, plan in mistermed(node.loaded, node.keys)] == [("k1", "free")]
    settings.policies.write_text("plans: { free: {}, gold: {} }\ncustomers: { c: { plan: gold } }\n")
    assert mistermed(load_all(settings).loaded, node.keys) == []


def test_balances_need_redis_in_the_settings(settings):
    settings.policies.write_text(
        "plans: { p: { currency: usd, prices: { requests: { per_unit: 1 } }, limits: [{ id: a, balance: usd }] } }\n"
    )
    with pytest.raises(PolicyError, match=r"p\.yaml:1: plans\.p\.limits\[0\]\.balance: balances are kept in Redis"):
        load(settings)
    redis = load_settings(settings.policies.parent / "sidecar.yaml", {"SIDECAR_REDIS__URL": "redis://127.0.0.1:6379/0"})
    assert load(redis)


def test_faults_of_policies_and_keys_come_together(settings):
    settings.policies.write_text("plans: nonsense\n")
    settings.keys.file.write_text("nonsense\n")
    with pytest.raises(PolicyError) as caught:
        load(settings)
    assert {fault.file for fault in caught.value.faults} == {str(settings.policies), str(settings.keys.file)}
