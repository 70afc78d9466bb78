"""What the shipper keeps beside the journals."""

import os
import subprocess
import sys

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.shipping.folder import FileQuarantine, journal_id, own
from tests.edge.kafka.topics import record


def lines(folder):
    return [orjson.loads(line) for line in (folder / "quarantine" / "0.jsonl").read_bytes().splitlines()]


def test_an_entry_is_kept_whole_with_its_place_and_the_reason(tmp_path):
    entry = record(7)._replace(position_after="3.1.4711")
    FileQuarantine(tmp_path).put("0", entry, "too large")
    (line,) = lines(tmp_path)
    assert line == {
        "place": "3.1.4711",
        "reason": "too large",
        "stream": "records",
        "sequence": 7,
        "id": entry.id.decode(),
        "key": "c7",
        "body": entry.body.decode(),
    }


def test_an_entry_is_kept_once_however_often_the_shipper_is_killed_before_the_position_moves(tmp_path):
    # Fails if the places are not read back.
    for _ in range(3):
        quarantine = FileQuarantine(tmp_path)
        quarantine.put("0", record(7), "too large")
        quarantine.put("0", record(7), "too large")
    FileQuarantine(tmp_path).put("0", record(8), "too large")
    assert [line["sequence"] for line in lines(tmp_path)] == [7, 8]


def test_a_torn_line_is_cut_off_and_its_entry_kept_again(tmp_path):
    FileQuarantine(tmp_path).put("0", record(7), "too large")
    path = tmp_path / "quarantine" / "0.jsonl"
    os.truncate(path, path.stat().st_size - 5)
    quarantine = FileQuarantine(tmp_path)
    quarantine.put("0", record(7), "too large")
    assert [line["sequence"] for line in lines(tmp_path)] == [7]


def test_a_body_that_is_no_text_is_kept_readable(tmp_path):
    FileQuarantine(tmp_path).put("0", record(7)._replace(body=b"\xff{", key=b"\xfe"), "invalid")
    assert (lines(tmp_path)[0]["body"], lines(tmp_path)[0]["key"]) == ("\\xff{", "\\xfe")


def test_a_journal_has_one_name_for_life_and_a_new_folder_another(tmp_path):
    # Fails if the name is the node's: a new volume would go by the old one's positions and ship nothing.
    name = journal_id(tmp_path / "a")
    assert len(name) == 16
    assert journal_id(tmp_path / "a") == name
    assert journal_id(tmp_path / "b") != name
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["journal.id"]


# Fails if a damaged name is taken for a new one: all of the journal was shipped again, without a word.
@pytest.mark.parametrize("text", [b"", b"\0" * 16, b"0123456789abcde", b"{\xff", b"0123456789abcdef0"])
def test_a_journal_name_that_is_damaged_is_refused_with_the_remedy(tmp_path, text):
    (tmp_path / "journal.id").write_bytes(text)
    with pytest.raises(SinkError, match=r"journal\.id: holds .*Write the name .* positions end with, or remove it"):
        journal_id(tmp_path)
    assert (tmp_path / "journal.id").read_bytes() == text


def test_a_folder_has_one_shipper_until_it_lets_go_or_dies(tmp_path):
    held = own(tmp_path)
    with pytest.raises(SinkError, match="another process is shipping"):
        own(tmp_path)
    os.close(held)
    code = "import os,pathlib,sys,sidecar.edge.shipping.folder as f; f.own(pathlib.Path(sys.argv[1])); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    os.close(own(tmp_path))
