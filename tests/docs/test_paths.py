"""docs/paths.md: every row of its tables is what the gateway does."""

import re
from inspect import getsource
from pathlib import Path

import pytest

from sidecar.config.settings import load_settings
from sidecar.core.http import spelling
from sidecar.core.http.request import HeadLimits, Request, read_request
from sidecar.core.policy import NORMALISE, PRESERVE, REFUSE, Route
from sidecar.gateway import serve
from sidecar.loading.documents import load_policies
from sidecar.testing import PaperClient
from tests.stage import Setting

PAGE = (Path(__file__).parents[2] / "docs" / "paths.md").read_text()
MODES = (NORMALISE, PRESERVE, REFUSE)


def table(name):
    """The rows of a table of the page, each a list of cells."""
    lines = PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


SPELLINGS = [
    (target.strip("`"), mode, result)
    for target, _, *results in table("spellings")
    for mode, result in zip(MODES, results, strict=True)
]
READINGS = [(target.strip("`"), result) for target, _, result in table("readings")]


def result(target, routes):
    """The target that the upstream sees, as code, or the reason of the refusal."""
    setting = Setting(routes=routes)
    line = ("OPTIONS" if target == "*" else "GET", target.encode(), 1)
    request = read_request(line, [(b"Host", b"api.example"), (b"X-Api-Key", b"ann")], HeadLimits())
    if not isinstance(request, Request):
        return request.slug
    client = PaperClient()
    serve(setting.context, request, client)
    if setting.upstream.calls:
        return f"`{setting.upstream.calls[0].head.target}`"
    [reason] = [name.removeprefix("refused|") for name in setting.tally.counts if name.startswith("refused|")]
    assert client.status == 400
    return reason


@pytest.mark.parametrize(("target", "mode", "expected"), SPELLINGS)
def test_every_spelling_is_answered_as_its_row_says(target, mode, expected):
    assert result(target, [Route("all", paths=mode)]) == expected


@pytest.mark.parametrize(("target", "expected"), READINGS)
def test_every_reading_is_answered_as_its_row_says(target, expected):
    routes = [Route("free", "/v1/free", paths=PRESERVE), Route("named", "/v1/**", paths=PRESERVE)]
    assert result(target, routes) == ("ambiguous-path" if expected == "400" else f"`{target}`")


def test_the_examples_of_the_page_are_valid(tmp_path):
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\n")
    modes = []
    for example in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / "p.yaml").write_text(example)
        modes.append(
            [route.paths for route in load_policies(load_settings(tmp_path / "sidecar.yaml", {})).policy.routes]
        )
    assert modes == [[PRESERVE, REFUSE, NORMALISE], [PRESERVE, PRESERVE]]


def test_every_reason_of_the_code_is_in_the_table():
    assert set(re.findall(r'"(path-[a-z-]+)"', getsource(spelling))) == {
        expected for _, _, expected in SPELLINGS if expected.startswith("path-")
    }


def test_the_tables_are_read():
    assert (len(SPELLINGS) >= 90, len(READINGS)) == (True, 5)
