"""Mirrors sidecar/edge/keys/file_keys.py."""

import stat
import threading

import pytest

from sidecar.core.errors import PolicyError
from sidecar.core.identity import KeyRecord, digest, make_key, stored
from sidecar.edge.keys.file_keys import FileKeys, KeyFile
from sidecar.testing import HandClock

CANARY = make_key(b"canary canary canary"[:20])
CANARY_HASH = stored(digest(CANARY.encode()))


def entry(name: str, credential: str = "", more: str = "") -> str:
    hash_ = stored(digest((credential or name).encode()))
    return f'  - {{ id: {name}, hash: "{hash_}", customer: c-{name}, subject: s-{name}, plan: free{more} }}\n'


def record(id_: str, **more) -> KeyRecord:
    return KeyRecord(id_, stored(digest(id_.encode())), f"c-{id_}", f"s-{id_}", "free", **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.yaml"


def found(keys: FileKeys, credential: str):
    answers = []
    keys.find(digest(credential.encode()), answers.append)
    assert len(answers) == 1
    return answers[0]


def faults(path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        KeyFile(path).records()
    return str(caught.value).splitlines()


def test_a_key_is_found_by_its_digest(path):
    path.write_text("keys:\n" + entry("one") + entry("two"))
    assert found(FileKeys(path, HandClock()), "two").customer == "c-two"


def test_unknown_and_revoked_keys_are_none(path):
    path.write_text("keys:\n" + entry("gone", more=", status: revoked"))
    keys = FileKeys(path, HandClock())
    assert found(keys, "gone") is None
    assert found(keys, "never") is None


def test_a_key_of_the_file_was_known_before_anybody_presented_it(path):
    path.write_text("keys:\n" + entry("one") + entry("gone", more=", status: revoked"))
    keys = FileKeys(path, HandClock())
    assert [keys.was_known(digest(name)) for name in (b"one", b"gone", b"never")] == [True, False, False]


# Fails if the end is looked at on load only.
def test_a_key_ends_at_the_microsecond_of_its_end(path):
    path.write_text("keys:\n" + entry("one", more=", expires: 2023-11-14T22:13:20.000001Z"))
    clock = HandClock(1_700_000_000_000_000)
    keys = FileKeys(path, clock)
    assert found(keys, "one").key_id == "one"
    clock.turn(1)
    assert found(keys, "one") is None


def test_block_style_and_dates_are_read_as_they_are_written(path):
    path.write_text(
        f"keys:\n- id: one\n  hash: {stored(digest(b'one'))}\n  customer: c\n  subject: s\n  plan: p\n"
        "  anchor: 2026-01-31\n  test: true\n"
    )
    assert found(FileKeys(path, HandClock()), "one").test


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "keys: []\n"])
def test_a_file_without_keys_knows_nobody(path, text):
    path.write_text(text)
    assert found(FileKeys(path, HandClock()), "one") is None


def test_a_reload_swaps_in_the_whole_file(path):
    path.write_text("keys:\n" + entry("one") + entry("two"))
    keys = FileKeys(path, HandClock())
    path.write_text("keys:\n" + entry("two") + entry("three"))
    keys.reload()
    assert [found(keys, name) is not None for name in ("one", "two", "three")] == [False, True, True]


# Fails if reload makes every Identity anew: counters are cached on the object.
def test_a_key_that_did_not_change_keeps_its_identity_through_a_reload(path):
    path.write_text("keys:\n" + entry("one") + entry("two"))
    keys = FileKeys(path, HandClock())
    one, two = found(keys, "one"), found(keys, "two")
    path.write_text("keys:\n" + entry("one") + entry("two").replace("free", "pro"))
    keys.reload()
    assert found(keys, "one") is one
    assert found(keys, "two") is not two
    assert found(keys, "two").plan == "pro"


# Fails if `self._known` is filled in place.
def test_a_wrong_file_changes_nothing(path):
    path.write_text("keys:\n" + entry("one"))
    keys = FileKeys(path, HandClock())
    path.write_text("keys:\n" + entry("two") + "  - { id: three }\n")
    with pytest.raises(PolicyError):
        keys.reload()
    path.unlink()
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        keys.reload()
    assert found(keys, "one") is not None
    assert found(keys, "two") is None


def test_every_fault_is_told_with_its_line_and_field(path):
    path.write_text("keys:\n" + entry("one", more=", colour: red") + "  - id: 7\n    plan: pro\n    expires: soon\n")
    told = faults(path)
    assert f"{path}:2: keys[0]: has an unknown field; a key has id, hash, customer, subject, plan" in told[0]
    assert any(line.startswith(f"{path}:3: keys[1].id: is 1 to 256 printable") for line in told)
    assert any(line.startswith(f"{path}:5: keys[1].expires: is a moment with its offset") for line in told)
    assert f"{path}:3: keys[1].customer: is missing" in told


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("keys:\n  one: two\n", 1), ("- a\n", 1), ("key: []\n", 1), ("keys: []\nmore: 1\n", 1),
        ("keys:\n  - text\n", 2),
        ("keys:\n  - {id: a\n", 3), ("keys:\n\t- a\n", 2), ("a: b: c\n", 1), ("keys: [*x]\n", 1), ("a\n---\nb\n", 2),
    ],
)  # fmt: skip
def test_what_is_no_key_file_is_refused_with_its_line(path, text, line):
    path.write_text(text)
    assert faults(path)[0].startswith(f"{path}:{line}: ")


def test_what_is_no_text_is_refused(path):
    path.write_bytes(b"keys: []\xff")
    assert faults(path) == [f"{path}: is not UTF-8 text"]
    path.write_bytes(b"keys: []\x00")
    assert faults(path)[0].startswith(f"{path}:")


# Fails if only ids are compared.
def test_two_keys_with_one_id_or_one_hash_are_refused(path):
    path.write_text("keys:\n" + entry("one") + entry("one", "other") + entry("two", "other"))
    assert faults(path) == [
        f"{path}:3: keys[1]: id is the same as that of keys[0]; each key needs its own",
        f"{path}:4: keys[2]: hash is the same as that of keys[1]; each key needs its own",
    ]


def test_a_field_said_twice_is_refused(path):
    path.write_text("keys:\n" + entry("one", more=", plan: pro"))
    assert faults(path) == [f"{path}:2: keys[0]: has the same field twice"]


# Fails if the YAML parser's own message is passed on, or an unknown field is named.
@pytest.mark.parametrize(
    "text",
    [
        "keys:\n  - { id: {key}, hash: {hash} }\n", "keys:\n  - { {key}: 1, {hash}: 2 }\n", "keys: *{key}\n",
        "keys: [ {hash}\n", "{key}: {hash}: {key}\n", "keys:\n  - { id: a, hash: {key}, plan: [{key}] }\n",
        "keys:\n  - {key}\n", "!{key} a\n", "keys:\n\t{key}: @\n",
        "keys:\n  - &a { id: a, hash: '{hash}', customer: c, subject: s, plan: p }\n  - *a\n",
        "keys:\n  - { id: a, hash: '{hash}', customer: '{key}', subject: '{hash}', plan: p, plan: {key} }\n",
    ],
)  # fmt: skip
def test_no_fault_repeats_a_credential_or_a_hash(path, text):
    path.write_text(text.replace("{key}", CANARY).replace("{hash}", CANARY_HASH))
    told = "\n".join(faults(path))
    assert CANARY not in told
    assert CANARY_HASH.removeprefix("sha256:")[:12] not in told


# --- Edits


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# ours\n",
        "keys: []\n",
        "keys:   [  ]  # none\n",
        "# ours\nkeys:\n  # the first\n" + entry("one") + "  # the second\n" + entry("two") + "# the end\n",
        "keys:\n" + entry("one").replace("  - ", "- ").rstrip("\n"),
        "keys:\n" + entry("one").rstrip("\n") + "   # last words",
        "keys: [ " + entry("one").strip().removeprefix("- ") + " ]\n",
        "keys:\n- id: one\n  plan: free\n  hash: "
        + stored(digest(b"one"))
        + "\n  subject: s\n  customer: c\n\n# end\n",
        "keys:\n  - id: one\n    plan: free\n    subject: s\n    customer: c\n    hash: '"
        + stored(digest(b"one"))
        + "'",
        "# \N{SNOWMAN}\nkeys:\n" + entry("one"),
    ],
)
def test_a_key_is_written_behind_the_others_and_leaves_them_as_they_are(path, before):
    path.write_text(before)
    file = KeyFile(path)
    others = file.records()
    file.put(record("new", name="it's: [odd], {really} #1"))
    assert file.records() == [*others, record("new", name="it's: [odd], {really} #1")]
    missing = [line for line in before.splitlines() if line.strip().startswith("#") and line not in path.read_text()]
    assert missing == []


def test_a_key_is_rewritten_in_its_place(path):
    path.write_text("# a\nkeys:\n" + entry("one") + "  # b\n" + entry("two") + "# c\n")
    KeyFile(path).put(record("one", status="revoked"))
    first, second = path.read_text().split("  # b\n")
    assert first.startswith('# a\nkeys:\n  - { id: "one", hash: ')
    assert first.endswith('status: "revoked" }\n')
    assert second == entry("two") + "# c\n"


def test_several_keys_are_written_in_one_step(path):
    path.write_text("keys:\n" + entry("one"))
    KeyFile(path).put(record("two"), record("one", expires="2026-01-01T00:00:00Z"))
    assert [r.id for r in KeyFile(path).records()] == ["one", "two"]
    assert KeyFile(path).records()[0].expires == "2026-01-01T00:00:00Z"


def test_a_new_file_is_for_its_owner_only(path):
    KeyFile(path).put(record("one"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Fails if the draft's own mode stays: a sidecar that runs as another user could not read the revocation.
def test_a_file_that_is_there_keeps_its_mode_and_stays_a_link(path, tmp_path):
    target = tmp_path / "real.yaml"
    target.write_text("keys:\n" + entry("one"))
    target.chmod(0o640)
    path.symlink_to(target)
    KeyFile(path).put(record("two"))
    assert path.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys.yaml", "real.yaml"]


def test_a_wrong_file_is_not_edited(path):
    path.write_text("keys:\n  - text\n")
    with pytest.raises(PolicyError):
        KeyFile(path).put(record("one"))
    assert path.read_text() == "keys:\n  - text\n"


# Fails if the edited text is not read back.
def test_an_edit_that_would_spoil_the_file_is_refused(path):
    path.write_text("keys:\n" + entry("one"))
    with pytest.raises(PolicyError, match="hash is the same as that of"):
        KeyFile(path).put(KeyRecord("two", stored(digest(b"one")), "c", "s", "p"))
    assert path.read_text() == "keys:\n" + entry("one")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"nowhere/keys.yaml: cannot be written: No such file"):
        KeyFile(tmp_path / "nowhere" / "keys.yaml").put(record("one"))


# Fails without the lock: an edit is lost.
def test_editors_at_the_same_time_lose_nothing(path):
    threads = [threading.Thread(target=KeyFile(path).put, args=(record(f"k{number}"),)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {r.id for r in KeyFile(path).records()} == {f"k{number}" for number in range(12)}
