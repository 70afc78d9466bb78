from sidecar.cli.record_reports import warn_of_gaps, warn_of_unread
from sidecar.records.sources import RecordSource
from sidecar.records.verify import Report


def test_a_report_without_gaps_and_a_source_without_compressed_files_are_silent(tmp_path, capsys):
    source = RecordSource("records", file=tmp_path / "r.jsonl", rotated=True)
    warn_of_unread(source)
    assert (warn_of_gaps(Report()), capsys.readouterr().err) == (False, "")
    for name in ("r.jsonl.1.gz", "r.jsonl.2.xz", "r.jsonl.bak\n"):
        (tmp_path / name).touch()
    warn_of_unread(source)
    err = capsys.readouterr().err
    assert "were not read, since compressed: unpack with `unxz -k` or `gunzip -k`" in err
    assert "r.jsonl.bak\\n: not taken for a rotated file: name it with --file\n" in err
