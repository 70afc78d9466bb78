"""Mirrors sidecar/cli/tables.py; and every command that prints a table fits a terminal of 80 columns."""

import io
import sys

import pytest
from rich.console import Console

from sidecar.cli import main, tables
from sidecar.cli.demo import table_of
from sidecar.cli.tables import field_lines, narrowed, print_text, table_lines
from sidecar.demo import DemoResult

COLUMNS = ("id", "customer", "plan")
SHORT = [{"id": "k_1", "customer": "acme", "plan": "free"}, {"id": "k_22", "customer": "", "plan": ["a", "b"]}]


def test_columns_are_as_wide_as_their_longest_cell_and_an_empty_cell_is_a_dash():
    assert table_lines(SHORT, COLUMNS, 80) == [
        "  id     customer   plan",
        "  k_1    acme       free",
        "  k_22   -          a, b",
    ]


def test_control_characters_are_written_as_escapes():
    # Fails if they reach the terminal: a path that a client sent would clear the screen, or hide a row.
    rows = [{"path": "/a\x1b[2J\rb\x9b", "names": ["é", "\n"]}]
    assert table_lines(rows, ("path", "names"), None)[1] == "  /a\\x1b[2J\\rb\\x9b   é, \\n"


# Fails if a narrow terminal cuts or folds the columns: the terminal's own folding is as hard to read.
def test_rows_that_are_wider_than_the_terminal_are_written_field_by_field():
    rows = [{"id": "k_1", "customer": "a-customer-of-30-characters-xx", "plan": "enterprise-annual-20"}, SHORT[1]]
    assert table_lines(rows, COLUMNS, 60) == [
        "  id k_1   customer a-customer-of-30-characters-xx",
        "      plan enterprise-annual-20",
        "  id k_22   plan a, b",
    ]
    assert len(table_lines(rows, COLUMNS, None)) == 3


def test_a_value_longer_than_a_line_is_continued_and_nothing_of_it_is_left_out():
    lines = table_lines([{"id": "x" * 100, "customer": "c", "plan": "p" * 30}], COLUMNS, 40)
    assert max(map(len, lines)) <= 40
    assert "".join(line.strip() for line in lines).replace(" ", "").count("x") == 100


def test_prose_is_folded_on_a_terminal_and_no_word_of_it_is_split(monkeypatch, capsys):
    # Fails if `2026-11` or a name of a file is on two lines: it could not be copied.
    monkeypatch.setattr(tables, "terminal_width", lambda **_: 20)
    print_text("sealed with 2026-11-and-more-than-20 now", err=True)
    assert capsys.readouterr() == ("", "sealed with\n2026-11-and-more-than-20\nnow\n")


@pytest.mark.parametrize("value", ['{"a":1,"b":[1,2,3]}', "x" * 50, "a, " * 20, "", "one two,three,", ",,,,"])
def test_a_field_goes_on_below_and_nothing_of_it_is_left_out(value):
    # Fails if a comma is lost where a line ends, or a text without one is longer than the line.
    lines = field_lines("data", value, 35)
    assert max(map(len, lines)) <= 35
    assert "".join(line[23:] for line in lines) == value
    assert field_lines("data", value, None) == [f"  data{' ' * 17}{value}"]


def test_a_column_that_may_be_shortened_keeps_both_ends_and_the_others_are_whole():
    # Fails if the gaps are not counted, or if the others are shortened too.
    rows = [{"id": "k" * 40, "model": "claude-sonnet-4-5-20250929-and-more", "n": 1}, {"id": "k", "model": "m", "n": 2}]
    lines = table_lines(narrowed(rows, ("id", "n", "model"), "model"), ("id", "n", "model"), None)
    assert lines[1] == f"  {'k' * 40}   1   claude-sonnet-4…250929-and-more"
    assert len(lines[1]) == 80
    assert lines[2].split() == ["k", "2", "m"]
    assert narrowed([{"id": "k" * 99, "model": "0123456789"}], ("id", "model"), "model")[0]["model"] == "0123…789"


ACCOUNT = "northern-europe-logistics-3000"  # 30 characters
PLAN = "enterprise-annual-v2"  # 20
SETTINGS = """\
upstreams:
  default:
    urls: ["https://api.internal.northern-europe.example:8443/v1", "https://api.standby.example:8443/v1"]
    host: upstream
    headers: { Authorization: "Bearer ${VENDOR_KEY}" }
redis: { url: "redis://127.0.0.1:1", nodes: 2 }
policies: p.yaml
keys: { file: keys.yaml }
workers: 4
"""
POLICY = f"""\
meters:
  output-tokens: {{ usage: output_total }}
routes:
  - {{ id: chat-completions, match: {{ methods: [POST], path: /v1/chat/completions }}, usage: openai, max_body: 1MiB }}
exclude:
  - {{ id: internal-customers, customers: [{ACCOUNT}, another-customer-with-a-long-name] }}
plans:
  {PLAN}:
    currency: usd
    limits:
      - {{ id: requests-per-second, rate: 50/s, burst: 100, scope: key }}
      - {{ id: output-tokens-per-month, meter: output-tokens, quota: 2000000000/month, scope: customer }}
      - {{ id: prepaid-credit, balance: usd, over: deny }}
    prices:
      output-tokens: {{ per_unit: "0.000012" }}
customers:
  {ACCOUNT}:
    plan: {PLAN}
    limits:
      - {{ id: output-tokens-per-month, meter: output-tokens, quota: 9000000000/month, scope: customer }}
"""


@pytest.fixture
def narrow(tmp_path, monkeypatch, capsys):
    """Runs a command as on a terminal of 80 columns; returns its standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VENDOR_KEY", "sk-1")
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "sidecar.yaml").write_text(SETTINGS)
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "node.yaml").write_text("policies: p.yaml\nkeys: { file: keys.yaml }\n")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sidecar", *arguments])
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    run(
        *("keys", "new", "--customer", ACCOUNT, "--subject", "warehouse-application-eu-1", "--plan", PLAN),
        *("--expires", "2099-12-31T23:59:59Z", "--name", "the key of the warehouse, rotated each quarter"),
    )
    wallet = ("-c", "node.yaml", "--customer", ACCOUNT, "--unit", "usd")
    run(
        *("wallet", "grant", *wallet, "--amount", "250000.125", "--id", "purchase-2026-11-21-0000123"),
        *("--expires", "2099-01-01", "--rollover-max", "1000", "--rollover-until", "2099-02-01"),
    )
    return run


# Each command that prints a table, with a name that it must print whole.
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("check --offline", "output-tokens-per-month"),
        ("keys list", ACCOUNT),
        ("keys search warehouse", ACCOUNT),
        (f"wallet show -c node.yaml --customer {ACCOUNT} --unit usd --ledger 5", "purchase-2026-11-21-0000123"),
    ],
)
def test_every_table_fits_80_columns_with_long_names(narrow, command, name):
    out = narrow(*command.split())
    assert name in out
    # The path of a test's folder may be longer; a single word cannot be folded.
    assert [line for line in out.splitlines() if len(line) > 80 and " " in line.strip()] == []


def test_the_table_of_the_demo_fits_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table_of(DemoResult()))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
