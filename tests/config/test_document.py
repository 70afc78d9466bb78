"""Mirrors sidecar/config/document.py."""

from pathlib import Path

import pytest

from sidecar.config.document import MAX_VALUES, did_you_mean, dotted, read
from sidecar.core.errors import PolicyError


def document(text):
    return read(Path("p.yaml"), text)


def test_every_value_has_its_line():
    read_now = document("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert read_now.data == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    lines = {dotted(loc): position.line for loc, position in read_now.positions.items()}
    assert lines == {"": 1, "a": 1, "b": 2, "b[0]": 3, "b[1]": 4, "b[1].c": 4, "b[1].d": 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),  # YAML 1.1 says false, which is how Norway is lost
        ("on", "on"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("0x10", "0x10"),
        ("1_000", 1_000),
        ("-3", -3),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ("~", None),
        ("'5'", "5"),
        ('"true"', "true"),
        (".inf", ".inf"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text, value):
    assert document(f"a: {text}").data == {"a": value}


def test_an_empty_document_is_an_empty_mapping():
    assert document("# nothing\n").data == {}


def test_a_key_that_is_given_twice_names_both_lines():
    # Fails if the second silently replaces the first, as yaml.safe_load does.
    with pytest.raises(PolicyError) as caught:
        document("a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert str(caught.value) == "p.yaml:4: a.b: is given twice (first on line 2): keep one"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2", "p.yaml:2: is not YAML: "),
        ("a: b: c", "p.yaml:1: is not YAML: mapping values are not allowed"),
        (
            "a:\n\tb: 1",
            "p.yaml:2: is not YAML: found character that cannot start any token; the line begins with a tab",
        ),
        (
            "a:\n  b: 1\n   c: 2",
            "p.yaml:3: is not YAML: mapping values are not allowed in this context; check the indent",
        ),
        ("a: 1\n--- \nb: 2", "p.yaml:2: is not YAML: but found another document"),
        ("a: *b", "p.yaml:1: is not YAML: found undefined alias"),
        ("b: 1\na: [::1]:80", 'expected node content; an IPv6 address is written in quotes: "[::1]:80"'),
        ("a: \x01", "p.yaml: is not YAML: "),
        ("? [a]\n: 1", "p.yaml:1: a key must be a plain word"),
        ("x: &x {a: 1}\ny:\n  <<: *x", "p.yaml:3: y: merge keys are not supported"),
        ("a: !!python/object/apply:os.system [ls]", "p.yaml:1: a: tags such as"),
        ("a: !secret x", "p.yaml:1: a: tags such as !secret are not supported"),
        ("a: !!int 5", "p.yaml:1: a: tags such as tag:yaml.org,2002:int are not supported"),
        ("a: &a [*a]", "is nested more than"),
        ("[" * 5_000, "is nested more than"),
        ("x: 1\na: { b: " + "1" * 5_000 + " }", "p.yaml:2: a.b: is a number of more than 100 digits"),
        ("a: [-" + "1" * 101 + "]", "p.yaml:1: a[0]: is a number of more than 100 digits"),
    ],
)
def test_what_is_not_one_plain_document_is_refused_at_its_line(text, said):
    with pytest.raises(PolicyError) as caught:
        document(text)
    assert said in str(caught.value)


def test_a_sequence_under_a_tag_is_refused_too():
    with pytest.raises(PolicyError, match="tags such as !x are not supported"):
        document("a: !x {b: 1}")


def test_aliases_are_expanded_within_a_bound():
    assert document("a: &x [1, 2]\nb: *x").data == {"a": [1, 2], "b": [1, 2]}
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(PolicyError, match=f"more than {MAX_VALUES} values"):
        document(laughs)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    with pytest.raises(PolicyError, match=r"nope\.yaml: cannot be read: No such file"):
        read(tmp_path / "nope.yaml")
    (tmp_path / "latin").write_bytes(b"a: \xe9")
    with pytest.raises(PolicyError, match="is not UTF-8 text"):
        read(tmp_path / "latin")


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("requets", ["requests", "bytes"], "did you mean 'requests'?"),
        ("REQUESTS", ["requests"], "did you mean 'requests'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "none are defined"),
    ],
)
def test_the_nearest_name_is_suggested_or_all_are_listed(name, known, said):
    assert did_you_mean(name, known) == said
