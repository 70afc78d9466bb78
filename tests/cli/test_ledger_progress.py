"""Progress goes to standard error: lines in a log, each trouble once, nothing where a program reads."""

from sidecar.cli.ledger_progress import LoadDisplay
from sidecar.edge.ledger.files import LedgerFile
from sidecar.edge.ledger.writer import Loaded
from sidecar.ledger.report import LoadReport, Progress

LOADED = Loaded(LedgerFile("t", 7, 0, 9), records=5, rows=10, rejected=1, copies=2, size=99)


def test_a_file_is_a_line_and_a_trouble_is_one_line(capsys):
    with LoadDisplay() as display:
        display.on_file(LOADED)
        display.on_progress(Progress("t", 7, 5, 9))
        for text in ("no broker", "no broker"):
            display.on_trouble(text)
    assert capsys.readouterr().err.splitlines() == [
        "t/p0007.000000000000000000-000000000000000009.parquet: 5 records, 99 bytes, 1 rejected, 2 twice",
        "sidecar: no broker: trying again",
    ]


def test_a_program_gets_no_lines(capsys):
    with LoadDisplay(quiet=True) as display:
        display.on_file(LOADED)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_rate_and_lag(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with LoadDisplay() as display:
        display.on_progress(Progress("t", 7, 5, 9))
        display.on_progress(Progress("t", 7, 7, 1_009))
        display.on_file(LOADED)
    err = capsys.readouterr().err
    assert "lag 1,002" in err
    assert ".parquet" not in err


def test_the_end_has_the_sums(capsys):
    report = LoadReport()
    report.add(LOADED)
    report.add(LOADED)
    LoadDisplay().conclude(report)
    out, err = capsys.readouterr()
    assert out == "10 records in 2 files, 2 rejected, 4 twice\n"
    assert err.startswith("sidecar: 2 lines are not records and NOT in any sum: `sidecar ledger verify` says where")
    assert err.count("\n") == 1
    LoadDisplay().conclude(LoadReport())
    assert capsys.readouterr().err == ""
