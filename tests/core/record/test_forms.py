"""Mirrors sidecar/core/record/forms.py; test_events.py reads what its forms make."""

import orjson
import pytest

from sidecar.core.identity import Identity
from sidecar.core.record import forms

ODD = 'a%b"%d\\%%s'


@pytest.mark.parametrize("place", ["plan", "route", "method"])
def test_a_percent_sign_in_a_name_is_no_place_in_a_form(place):
    # Mutation: a literal that is not escaped takes an argument that is another's.
    way = {"plan": "p", "route": "r", "method": "GET"} | {place: ODD}
    who = Identity(ODD, ODD, ODD, "free")
    entry = orjson.loads(forms.open_form(who, *way.values()) % (1, b"", forms.json("/p%61th"), b"{}"))
    assert entry[place] == ODD
    assert (entry["customer"], entry["subject"], entry["key_id"], entry["path"]) == (ODD, ODD, ODD, "/p%61th")


def test_a_form_is_rendered_once_for_a_caller_and_a_route():
    who = Identity("k", "s", "c", "free")
    assert forms.open_form(who, "free@1", "all", "GET") is forms.open_form(who, "free@1", "all", "GET")


def test_a_verdict_is_members_of_a_record():
    members = orjson.loads(b"{" + forms.verdict("exact", True, "plan:free", "ok")[:-1] + b"}")
    assert members == {"quality": "exact", "billable": True, "billable_reason": "plan:free", "outcome": "ok"}
