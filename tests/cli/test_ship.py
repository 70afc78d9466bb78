import json

import pytest

from sidecar.core.record.frame import RECORD, encode_frame, segment_name


@pytest.fixture
def journal(folder):
    worker = folder / "data" / "journal" / "0"
    worker.mkdir(parents=True)
    frames = [encode_frame(RECORD, "records", n, b"%026d" % n, b"c", b'{"n":%d}' % n) for n in (1, 2, 3)]
    (worker / segment_name(1, 1)).write_bytes(b"".join(frames))
    return worker.parent


def test_a_journal_is_carried_once_however_often_it_is_asked_for(sidecar, folder, journal):
    for shipped in (3, 0):
        status, out, err = sidecar("ship", "-c", "sidecar.yaml", "--journal", str(journal))
        assert (status, err.count("Error")) == (0, 0)
        assert out.startswith(f"shipped {shipped}, quarantined 0, left ")
    lines = (folder / "data" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2, 3]


def test_what_is_left_is_status_1_and_says_why(sidecar, folder, journal):
    (folder / "data" / "records.jsonl").mkdir()
    status, out, err = sidecar("ship", "-c", "sidecar.yaml", "--seconds", "1")
    assert status == 1
    assert out.startswith("shipped 0, ")
    assert "records.jsonl cannot be opened: Is a directory" in err


def test_a_folder_that_is_not_there_is_wrong_usage(sidecar, folder):
    status, _, err = sidecar("ship", "-c", "sidecar.yaml", "--journal", "nowhere")
    assert status == 2
    assert "'nowhere' does not exist" in err


def test_without_a_journal_there_is_nothing_to_ship_and_it_says_so(sidecar, folder):
    status, _, err = sidecar("ship", "-c", "sidecar.yaml")
    assert status == 1
    assert "journal: there is no journal" in err
