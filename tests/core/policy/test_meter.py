"""Mirrors sidecar/core/policy/meter.py."""

from types import SimpleNamespace

from sidecar.core.policy import Arriving


def test_what_arrives_is_asked_like_a_request_and_for_its_body():
    request, tap = SimpleNamespace(method="POST", fields={b"a": b"1"}), object()
    arriving = Arriving(request, tap)
    assert (arriving.method, arriving.fields, arriving.tap) == ("POST", {b"a": b"1"}, tap)
