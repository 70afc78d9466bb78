"""Every kind is asked every question, so that an answer that was forgotten fails here and not in production."""

import ast
from pathlib import Path

import pytest

from sidecar.core.limits import KINDS, base, checks_for
from sidecar.core.limits.base import STORED, Kind
from tests.core.limits.examples import EXAMPLES, NOW_US, WHO

SOURCE = Path(base.__file__).with_name("base.py")  # a compiled class names neither; its source is beside it
(BODY,) = [node.body for node in ast.parse(SOURCE.read_text()).body if getattr(node, "name", "") == "Kind"]
QUESTIONS = [each.name for each in BODY if isinstance(each, ast.FunctionDef)]
FACTS = [each.target.id for each in BODY if isinstance(each, ast.AnnAssign)]


def test_every_kind_has_an_example_here():
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_kind_answers_every_question(name, question):  # Fails if `QuotaKind.describe` is deleted.
    assert getattr(type(KINDS[name]), question) is not getattr(Kind, question)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("fact", FACTS)
def test_every_kind_states_every_fact(name, fact):  # Fails if `WindowKind.is_protective` is deleted.
    assert hasattr(KINDS[name], fact)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_says_of_itself_fits_together(name):
    kind, limit = KINDS[name], EXAMPLES[name]
    (check,) = checks_for((limit,), (7,), WHO, NOW_US).keys
    assert kind.name == name
    assert kind.stored_as in STORED
    assert kind.bounds_fault(limit) is None
    assert bool(kind.example) == bool(kind.written_as)
    assert len(check) == {"window": 2, "balance": 4}.get(name, 1)
