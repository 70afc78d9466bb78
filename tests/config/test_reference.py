"""Mirrors sidecar/config/reference.py."""

from pathlib import Path

import pytest
import yaml

from sidecar.config.reference import NAME, sections, settings_table
from sidecar.config.settings import Settings, load_settings
from sidecar.core.errors import PolicyError

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
ROWS = [row for section in sections() for row in section.rows]
BY_NAME = {".".join(row.path): row for row in ROWS}


def test_the_page_is_that_of_the_model():
    # Written by: sidecar schema settings --table, between the two comments.
    _, _, rest = DOCS.read_text().partition("<!-- fields -->\n")
    assert rest.partition("\n<!-- end of fields -->")[0] == settings_table()


# Fails if a section of an optional model, or of a mapping, is left out.
def test_every_field_of_the_model_has_a_row_or_a_section():
    tops = {section.path[0] for section in sections() if section.path} | {row.path[0] for row in ROWS}
    assert tops == set(Settings.model_fields)
    assert {"upstreams.NAME.tls.server_name", "kafka.security.mechanism", "journal.denials.per_limit"} <= set(BY_NAME)


def test_every_section_and_every_setting_says_what_it_is():
    assert [section.path for section in sections() if not section.about] == []
    assert [".".join(row.path) for row in ROWS if not row.meaning] == []


def test_a_row_has_type_default_unit_example_and_variable():
    row = BY_NAME["http.idle_timeout_ms"]
    assert (row.type, row.default, row.unit) == ("integer, 1 or more", "75s", "milliseconds")
    assert (row.written, row.example, row.variable) == ("idle_timeout", "75s", "SIDECAR_HTTP__IDLE_TIMEOUT_MS")
    assert BY_NAME["redis.url"].default is None
    assert not BY_NAME["redis.url"].optional
    assert BY_NAME["control.listen"].default == "[127.0.0.1:8081]"


# Fails if an example is not given as it is shown, or a default is not written with its unit.
@pytest.mark.parametrize("row", ROWS, ids=lambda row: ".".join(row.path))
def test_every_example_and_every_default_is_accepted(row, tmp_path):
    path = tmp_path / "sidecar.yaml"
    for value in {row.example, row.default or row.example}:
        document = yaml.safe_load(f"{row.written}: {value}")
        for name in reversed(row.path[:-1]):
            document = {name.replace(NAME, "example"): document}
        path.write_text(yaml.safe_dump(document))
        assert own_faults(row, path, {}) == [], value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ".".join(row.path))
def test_every_variable_sets_its_setting(row):
    assert own_faults(row, None, {row.variable.replace(NAME, "EXAMPLE"): row.example.strip('"')}) == []


def own_faults(row, path, env):
    """The faults of this setting alone, without those of other settings that it goes with."""
    try:
        load_settings(path, env)
    except PolicyError as error:
        places = [".".join((*row.path[:-1], name)).replace(NAME, "example") for name in (row.written, row.path[-1])]
        ours = [fault for fault in error.faults if fault.where.startswith(tuple(places))]
        return [str(fault) for fault in ours if "needs " not in fault.what and "goes with" not in fault.what]
    return []
