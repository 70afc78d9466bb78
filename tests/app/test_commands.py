import pytest

from sidecar.app.commands import command_source, originals, pending_statement
from sidecar.config.settings import load_settings
from sidecar.core.errors import SinkError
from sidecar.core.record.statements import Audit


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "sidecar.yaml").write_text("node: n1\nregion: eu\njournal: { dir: j }\nsink: { file: out.jsonl }\n")
    return load_settings(tmp_path / "sidecar.yaml", {})


def test_a_command_records_under_the_name_of_its_node(settings):
    with command_source(settings) as commands:
        source = commands.write([pending_statement(Audit("a", "ann", "t/1", "cli", "done"))], "0.1.0")
    assert source.startswith("//sidecar/eu/n1/commands/")


async def test_what_was_never_recorded_is_an_error_only_where_there_is_no_journal_either(settings):
    with pytest.raises(SinkError, match=r"out\.jsonl: cannot be read"):
        await originals(settings).find("01M8N97TG90000000000000001")
    settings.journal.dir.mkdir()
    assert await originals(settings).find("01M8N97TG90000000000000001") is None
