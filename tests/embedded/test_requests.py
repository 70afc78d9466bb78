"""Mirrors sidecar/embedded/requests.py; test_listener.py has wrong requests as they are sent."""

import orjson
import pytest

from sidecar.core.limits import KINDS, checks_for
from sidecar.core.limits.base import COUNT
from sidecar.embedded.requests import read_request
from tests.core.limits.examples import EXAMPLES, NOW_US, WHO


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.stored_as == COUNT])
def test_the_key_of_every_kind_of_counter_is_one(name):
    # Fails if a new kind has a code that is not known here: its counters could not be rebuilt.
    (check,) = checks_for((EXAMPLES[name],), (1,), WHO, NOW_US).entries
    request = {"do": "values", "keys": list(check.keys)}
    assert read_request(orjson.dumps(request)) == request


def test_the_first_fault_is_named_with_its_field():
    with pytest.raises(ValueError, match=r"^void\.grant: "):
        read_request(b'{"do": "void", "customer": "c", "unit": "usd", "grant": 5}')
    with pytest.raises(ValueError, match="unexpected end"):
        read_request(b"{")
