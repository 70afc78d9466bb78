"""Mirrors sidecar/core/record/text.py."""

import orjson

from sidecar.core.record.text import json


def test_text_that_is_not_unicode_is_written_as_its_escape():
    # Fails if only strings at the top are made readable.
    assert orjson.loads(json({"a\udc80": ["/\udc80", 7]})) == {"a\\udc80": ["/\\udc80", 7]}
