"""docs/policies.md names what a policy may name."""

from pathlib import Path

from sidecar.core.limits import KINDS
from sidecar.core.usage.ai import ADAPTERS

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()


def test_every_ai_api_is_in_the_table_of_routes():  # Fails if `gemini` is taken out of its row.
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `usage` |")]
    assert [name for name in ADAPTERS if f"`{name}`" not in row] == []


def test_every_kind_of_limit_is_in_the_table_of_limits():
    assert [name for name, kind in KINDS.items() if kind.written_as and f"\n| `{name}: " not in PAGE] == []
