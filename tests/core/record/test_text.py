"""Mirrors sidecar/core/record/text.py."""

import orjson

from sidecar.core.record.text import instant, json, second


def test_text_that_is_not_unicode_is_written_as_its_escape():
    # Fails if only strings at the top are made readable.
    assert orjson.loads(json({"a\udc80": ["/\udc80", 7]})) == {"a\\udc80": ["/\\udc80", 7]}


def test_times_have_six_digits_after_the_point():
    assert instant(1_795_223_006_000_456) == "2026-11-21T01:03:26.000456Z"
    assert second(0) == b"1970-01-01T00:00:00."
