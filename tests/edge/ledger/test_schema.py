"""docs/ledger.md has the columns and the views that there are."""

import re
from pathlib import Path

import pytest

from sidecar.edge.ledger.schema import COLUMNS, NAMES, ORDER, SHAPE
from sidecar.edge.ledger.views import VIEWS

PAGE = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text()
COLUMN_ROWS = [f"| `{each.name}` | {each.type} | {each.meaning}{' (once)' * each.is_once} |" for each in COLUMNS]
VIEW_ROWS = [f"| `{name}` | {about} |" for name, (about, _) in VIEWS.items()]


# Fails if a column is added to the table and not to the page.
@pytest.mark.parametrize(("part", "rows"), [("columns", COLUMN_ROWS), ("views", VIEW_ROWS)])
def test_the_page_is_that_of_the_tables(part, rows):
    text = PAGE.partition(f"<!-- {part} -->\n")[2].partition(f"\n<!-- end of {part} -->")[0]
    assert text.splitlines()[2:] == rows


def test_the_order_of_rows_is_of_columns_and_each_member_that_is_read_is_declared():
    assert set(ORDER) <= set(NAMES)
    members = {name for each in COLUMNS for name in re.findall(r"r\.data\.(\w+)", each.record)}
    assert members <= set(SHAPE["data"])
