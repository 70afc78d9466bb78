import pytest

from sidecar.app.worker_options import gateway_options
from sidecar.config.settings import load_settings


# Fails if each worker may look up as many unknown keys of a client as the node, or 0 bounds them.
@pytest.mark.parametrize(("text", "each"), [("10", 3), ("1", 1), ("0", 0)])
def test_each_worker_has_its_part_of_the_failed_authentications(tmp_path, text, each):
    (tmp_path / "sidecar.yaml").write_text(
        "policies: p.yaml\nkeys: { file: keys.yaml }\nworkers: 4\nredis: { url: redis://127.0.0.1:1 }\n"
    )
    settings = load_settings(tmp_path / "sidecar.yaml", {"SIDECAR_KEYS__FAILURES_PER_SECOND": text})
    assert gateway_options(settings).failures_per_second == each
