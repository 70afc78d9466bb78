import pytest

from sidecar.app.loading import load, load_all, planless
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
    policy, keys = load_all(settings)
    assert load(settings) == policy.version
    assert [key.id for key in planless(policy, keys)] == ["k1"]


def test_faults_of_policies_and_keys_come_together(settings):
    settings.policies.write_text("plans: nonsense\n")
    settings.keys.file.write_text("nonsense\n")
    with pytest.raises(PolicyError) as caught:
        load(settings)
    assert {fault.file for fault in caught.value.faults} == {str(settings.policies), str(settings.keys.file)}
