"""Mirrors sidecar/cli/key_files.py, through the command line as people use it."""

import csv
import io
import json

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.identity import digest, stored
from sidecar.edge.redis.key_registry import KeyRegistry

PLAIN = """\
key,id,customer,plan,subject,zone,test
first-key-0001,k_1,acme,free,app-1,Asia/Tokyo,false
second-key-002,k_2,acme,pro,,,true
third-key-0003,,beta,free,,,
"""


def imported(desk, text, *arguments, name="keys.csv"):
    path = desk.config.with_name(name)
    path.write_text(text)
    return desk("import", str(path), *arguments)


def test_keys_of_a_csv_are_registered_by_their_hashes(desk):
    code, out, err = imported(desk, PLAIN)
    assert (code, out, err) == (0, "", "imported 3 keys: 3 new, 0 changed; 0 unchanged\n")
    first, second, third = sorted(desk.listed(), key=lambda one: (one["customer"], one["id"]))
    assert (first["subject"], first["zone"], first["test"]) == ("app-1", "Asia/Tokyo", False)
    assert (second["subject"], second["zone"], second["test"], second["plan"]) == ("acme", "UTC", True, "pro")
    assert third["id"].startswith("k_")
    assert desk("show", "--stdin", stdin="third-key-0003\n")[1].startswith(f"id          {third['id']}\n")


# Fails if a row without an id gets a new one although its key is registered.
def test_the_same_file_again_changes_nothing(desk):
    imported(desk, PLAIN)
    before = desk.listed()
    assert imported(desk, PLAIN)[2] == "imported 0 keys: 0 new, 0 changed; 3 unchanged\n"
    assert desk.listed() == before


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_what_is_exported_can_be_imported_elsewhere(desk, format_):
    imported(desk, PLAIN)
    before = desk.listed()
    code, text, _ = desk("export", "--format", format_)
    assert code == 0
    assert "first-key-0001" not in text
    assert imported(desk, text, name="out")[2].endswith("0 new, 0 changed; 3 unchanged\n")
    desk.forget_all()
    assert imported(desk, text, name="out")[2].endswith("3 new, 0 changed; 0 unchanged\n")
    assert desk.listed() == before


def test_json_is_taken_as_an_array_or_as_lines(desk):
    rows = [{"hash": stored(digest(b"%d" % n)), "id": f"k_{n}", "customer": "c", "plan": "free"} for n in range(4)]
    assert imported(desk, json.dumps(rows[:2], indent=2), name="keys.json")[0] == 0
    assert imported(desk, "\n".join(json.dumps(row) for row in rows[2:]), name="keys.json")[0] == 0
    assert [one["id"] for one in desk.listed()] == ["k_0", "k_1", "k_2", "k_3"]


# Fails if rows before a wrong one are written.
def test_a_wrong_row_is_named_by_line_and_column_and_nothing_is_imported(desk):
    imported(desk, PLAIN)
    before = desk.listed()
    text = PLAIN.replace("k_1,acme,free", "k_4,acme,fre").replace("first-key-0001", "fourth-key-004")
    text += "short,k_5,acme,free,,,\nfifth-key-0005,k_6,acme,free,,Mars/Base,\na,b\n"
    code, out, err = imported(desk, text)
    assert (code, out) == (2, "")
    file = desk.config.with_name("keys.csv")
    assert err.splitlines() == [
        f"{file}:2: plan: is not defined by the policies; did you mean 'free'?",
        f"{file}:5: key: has fewer than 8 characters: it can be guessed",
        f"{file}:6: zone: is an IANA time zone, as in Europe/Berlin",
        f"{file}:7: has 2 cells, and the header has 7",
        f"{file}: nothing was imported: 4 faults",
    ]
    assert desk.listed() == before


def test_registered_keys_change_only_where_it_is_asked_for(desk):
    imported(desk, PLAIN)
    text = PLAIN.replace("k_1,acme,free", "k_1,acme,pro")
    code, _, err = imported(desk, text)
    assert code == 2
    assert "keys.csv:2: plan: is not that of the registered key: --replace changes it" in err
    assert imported(desk, text, "--replace", "--check")[2] == "would import 1 key: 0 new, 1 changed; 2 unchanged\n"
    assert desk.listed()[0]["plan"] == "free"
    assert imported(desk, text, "--replace")[2] == "imported 1 key: 0 new, 1 changed; 2 unchanged\n"
    changed = next(one for one in desk.listed() if one["id"] == "k_1")
    assert changed["plan"] == "pro"
    assert changed["plan_since"]


# Fails if a column that the file lacks is taken as its default: a revoked key would work again.
def test_columns_that_a_file_lacks_stay_as_they_are(desk):
    imported(desk, PLAIN)
    desk("revoke", "k_1")
    assert imported(desk, "hash,customer,plan\n" + f"{hash_of(desk, 'first-key-0001')},acme,pro\n", "--replace")[0] == 0
    changed = next(one for one in desk.listed() if one["id"] == "k_1")
    assert (changed["status"], changed["zone"], changed["plan"]) == ("revoked", "Asia/Tokyo", "pro")


def hash_of(desk, key):
    pepper = b"salt" if "salt" in desk.config.read_text() else b""
    return stored(digest(key.encode(), pepper))


def test_keys_are_made_for_rows_without_one_and_printed_once(desk):
    text = 'id,customer,plan\nk_1,acme,free\nk_2,"Beta, Inc",pro\n'
    assert "key: is missing, and so is hash: give one of them, or use --make-keys" in imported(desk, text)[2]
    code, out, _ = imported(desk, text, "--make-keys")
    assert code == 0
    header, first, second = csv.reader(io.StringIO(out))
    assert (header, first[:2], second[:2]) == (["id", "customer", "key"], ["k_1", "acme"], ["k_2", "Beta, Inc"])
    assert desk("show", "--stdin", stdin=second[2])[1].startswith("id          k_2\n")
    assert imported(desk, text, "--make-keys")[1:] == ("", "imported 0 keys: 0 new, 0 changed; 2 unchanged\n")


def test_keys_are_read_from_standard_input(desk, monkeypatch):
    class Stdin(io.StringIO):
        buffer = io.BytesIO(PLAIN.encode())

    assert desk("import", "-", stdin=Stdin())[0] == 0
    assert len(desk.listed()) == 3


# Fails if the count is of what was to be written.
def test_an_error_of_redis_says_how_much_was_imported_and_it_can_be_repeated(redis_desk, monkeypatch):
    rows = "".join(f"key-{n:06d}-x,k_{n},acme,free\n" for n in range(1_500))
    put, calls = KeyRegistry.put, []

    async def failing(self, *records):
        calls.append(len(records))
        if len(calls) == 2:
            raise StoreError("gone")
        await put(self, *records)

    with monkeypatch.context() as patch:
        patch.setattr(KeyRegistry, "put", failing)
        code, _, err = imported(redis_desk, "key,id,customer,plan\n" + rows)
    assert code == 1
    assert err == (
        "sidecar: 1,000 of 1500 keys were imported, then gone; import the file again: keys that are registered stay as"
        " they are\n"
    )
    assert imported(redis_desk, "key,id,customer,plan\n" + rows)[2].endswith("500 new, 0 changed; 1,000 unchanged\n")


def test_no_message_of_an_import_repeats_a_key_or_a_hash(desk):
    text = "key,id,customer,plan\nsecret-key-1,k_1,acme,secret-key-2\nsecret-key-3,secret-key-4\n"
    for file in (text, text.replace("key,id,customer,plan", "secret-key-5,id,customer,plan"), "secret-key-6\n"):
        code, out, err = imported(desk, file)
        assert code == 2
        assert "secret-key" not in out + err


@pytest.mark.parametrize(
    "text", ["", "\n", "key,customer,plan\n", "[]", "[1]", '{"key": ', '[{"key": "x"} 1]', '"x\ny']
)
def test_a_file_without_keys_is_wrong_usage(desk, text):
    code, out, err = imported(desk, text)
    assert (code, out) == (2, "")
    assert "nothing was imported" in err
