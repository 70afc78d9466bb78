import pytest

from sidecar.app.record_sources import record_source
from sidecar.config.settings import load_settings
from sidecar.core.errors import SinkError


@pytest.mark.parametrize(
    ("environment", "stream", "place"),
    [
        ({}, "records", "records.jsonl"),
        ({}, "denials", "records.denials.jsonl"),
        ({"SIDECAR_KAFKA__BOOTSTRAP_SERVERS": "h:1"}, "records", "topic usage.records"),
        ({"SIDECAR_KAFKA__BOOTSTRAP_SERVERS": "h:1"}, "denials", "topic usage.denials"),
    ],
)
def test_records_are_where_the_settings_send_them(environment, stream, place):
    assert str(record_source(load_settings(None, environment), stream, None, None)).endswith(place)


@pytest.mark.parametrize("sink", ["stdout: true, file: null", "stdout: true"])
def test_standard_output_cannot_be_read_back(tmp_path, sink):
    # Fails if the default of sink.file is read where standard output goes before it.
    (tmp_path / "s.yaml").write_text(f"sink: {{ {sink} }}\n")
    with pytest.raises(SinkError, match="name --journal or --file"):
        record_source(load_settings(tmp_path / "s.yaml", {}), "records", None, None)
