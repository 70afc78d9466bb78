"""Mirrors sidecar/edge/keys/key_document.py."""

import pytest
import yaml

from sidecar.core.errors import PolicyError
from sidecar.core.identity import KeyRecord, digest, stored
from sidecar.edge.keys.key_document import KeyDocument


def record(id_, **fields):
    given = {"customer": "c", "subject": "s", "plan": "free", **fields}
    return KeyRecord(id_, stored(digest(id_.encode())), **given)


ODD = record("k 1,2", customer="a: b", subject="# { } [ ]", name='it\'s, 100 % \\ "x"', test=True, zone="Asia/Tokyo")
THREE = [record("k_1"), record("k_2", test=True), record("no", customer="true", subject="12")]


def ours(*records):
    return KeyDocument("f", "").with_records(records)


@pytest.mark.parametrize("records", [THREE, [ODD], [*THREE, ODD]])
def test_what_is_written_is_read_back_and_is_yaml(records):
    text = ours(*records)
    assert KeyDocument("f", text).records == records
    assert yaml.safe_load(text) == {"keys": [one.stored() for one in records]}


# Fails if the pattern takes a line whose meaning in YAML is another.
@pytest.mark.parametrize(
    "line",
    [
        '  - { id: "k_1", id: "k_2" }', '  - { id: "\\u0041" }', "  - { id: 'k' }", "  - { id: k }", "  # a comment",
        '  - { id: "k" } # why', "  - { test: True }", '- { id: "k" }', '  - { id: "k", }', "    deeper: true",
        '  - { id: "k"}', "other: []", '  - [ "k" ]', "  - {}", '  - { id: "\u00e9" }',
    ],
)  # fmt: skip
def test_a_file_with_any_other_line_is_read_as_yaml(line, monkeypatch):
    text = ours(*THREE) + line + "\n"
    one_way = _outcome(text)
    monkeypatch.setattr(KeyDocument, "_read_lines", lambda _self: [])
    assert _outcome(text) == one_way


def _outcome(text):
    try:
        document = KeyDocument("f", text)
    except PolicyError as error:
        return [str(fault) for fault in error.faults]
    return document.records, document.with_records([record("k_2", plan="pro"), record("k_9")])


# Fails if the positions of the pattern are not those of YAML.
@pytest.mark.parametrize("change", [[record("k_2", plan="pro")], [record("k_9")], [record("k_1"), record("k_8"), ODD]])
def test_both_readers_change_a_text_alike(change, monkeypatch):
    text = ours(*THREE)
    changed = KeyDocument("f", text).with_records(change)
    monkeypatch.setattr(KeyDocument, "_read_lines", lambda _self: [])
    assert KeyDocument("f", text).with_records(change) == changed


def test_several_keys_are_changed_and_added_at_once():
    text = ours(*THREE)
    changed = KeyDocument("f", text).with_records([record("k_9"), record("no", plan="pro"), record("k_8")])
    assert [(one.id, one.plan) for one in KeyDocument("f", changed).records] == [
        ("k_1", "free"), ("k_2", "free"), ("no", "pro"), ("k_9", "free"), ("k_8", "free"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["keys: []\n", "keys: [] # none\n", "", "# mine\n"])
def test_several_keys_are_added_to_an_empty_file(text):
    assert KeyDocument("f", KeyDocument("f", text).with_records(THREE)).records == THREE


def test_several_keys_are_added_within_brackets():
    text = f"keys: [{{ {', '.join(f'{name}: {value}' for name, value in record('k_1').stored().items())} }}]\n"
    text = text.replace("sha256:", "'sha256:").replace(", customer", "', customer")
    changed = KeyDocument("f", text).with_records([record("k_2"), record("k_3")])
    assert [one.id for one in KeyDocument("f", changed).records] == ["k_1", "k_2", "k_3"]


# Fails if the lines of the pattern are counted from another place.
def test_faults_of_the_commands_own_form_name_their_line():
    text = ours(*THREE).replace("sha256:", "md5:", 1)
    text += f'  - {{ id: "k_1", hash: "{stored(digest(b"x"))}", customer: "c", subject: "s", plan: "p" }}\n'
    with pytest.raises(PolicyError, match=r"^f:2: keys\[0\]\.hash: is `sha256:`"):
        KeyDocument("f", text)
    with pytest.raises(PolicyError, match=r"^f:5: keys\[3\]: id is the same as that of keys\[0\]"):
        KeyDocument("f", text.replace("md5:", "sha256:"))
