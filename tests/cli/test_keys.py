"""Mirrors sidecar/cli/keys.py, through the command line as people use it."""

import json
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from sidecar.core.identity import digest, has_valid_checksum, make_key, stored
from tests.cli.conftest import Desk

ONE = ("new", "--customer", "cust-1", "--subject", "app-1", "--plan", "free", "--id", "k_1")


def test_a_new_key_is_printed_once_alone_on_standard_output(desk):
    code, out, err = desk(*ONE)
    assert code == 0
    assert re.fullmatch(r"msk_[0-9A-Za-z]{33}\n", out)
    assert has_valid_checksum(out.strip().encode())
    assert "id k_1, customer cust-1, subject app-1, plan free" in err
    assert out.strip() not in err + str(desk("list")) + str(desk.listed())


# Fails if the file holds the credential, or the hash without the pepper.
def test_only_the_peppered_hash_is_stored(tmp_path, monkeypatch, capsys):
    desk = Desk(tmp_path, "keys: { file: keys.yaml, pepper: salt }\n", monkeypatch, capsys)
    _, out, _ = desk(*ONE)
    (entry,) = yaml.safe_load(desk.file.read_text())["keys"]
    assert entry["hash"] == stored(digest(out.strip().encode(), b"salt"))
    assert out.strip() not in desk.file.read_text()


def test_a_key_in_json_carries_its_fields(desk):
    _, out, _ = desk(*ONE, "--json", "--test", "--zone", "Asia/Tokyo", "--anchor", "2026-01-31", "--name", "a note")
    told = json.loads(out)
    assert told.pop("key").startswith("msk_test_")
    assert told == {
        "id": "k_1", "customer": "cust-1", "subject": "app-1", "plan": "free", "status": "active", "zone": "Asia/Tokyo",
        "anchor": "2026-01-31", "expires": "", "name": "a note", "test": True,
        "plan_since": "",
    }  # fmt: skip
    assert desk.listed() == [told]


def test_a_key_made_elsewhere_is_registered_from_standard_input_and_not_repeated(desk):
    code, out, err = desk(*ONE, "--stdin", stdin="theirs-0123456789\n")
    assert code == 0
    assert "theirs" not in out + err
    assert desk.listed()[0]["id"] == "k_1"
    assert desk(*ONE[:-1], "k_2", "--stdin", stdin="\n")[0] == 2


def test_an_id_that_is_taken_is_refused(desk):
    desk(*ONE)
    code, out, err = desk(*ONE)
    assert (code, out) == (1, "")
    assert "another key has the id k_1" in err


def test_a_revoked_key_is_listed_as_revoked(desk):
    desk(*ONE)
    desk(*ONE[:-1], "k_2")
    assert desk("revoke", "k_1")[0] == 0
    assert {one["id"]: one["status"] for one in desk.listed()} == {"k_1": "revoked", "k_2": "active"}
    assert desk("revoke", "k_1")[0] == 0


# Fails if keys are revoked one by one.
def test_an_unknown_id_revokes_nothing(desk):
    desk(*ONE)
    code, _, err = desk("revoke", "k_1", "k_9")
    assert code == 1
    assert err == "sidecar: no key has the id k_9; `sidecar keys list` shows all ids\n"
    assert desk.listed()[0]["status"] == "active"


def test_rotation_makes_a_key_for_the_same_identity_and_lets_the_old_one_end(desk):
    _, before, _ = desk(*ONE, "--zone", "Asia/Tokyo")
    code, out, _ = desk("rotate", "k_1", "--grace", "2h", "--id", "k_2")
    assert code == 0
    assert out != before
    old, new = sorted(desk.listed(), key=lambda one: one["id"])
    assert {**new, "id": "k_1", "expires": ""} == {**old, "expires": ""}
    left = datetime.fromisoformat(old["expires"]) - datetime.now(UTC)  # noqa: TID251 - held against the real clock
    assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)
    assert new["expires"] == ""


def test_rotation_without_grace_ends_the_old_key_at_once(desk):
    desk(*ONE)
    assert desk("rotate", "k_1", "--grace", "0s")[0] == 0
    assert sorted(one["status"] for one in desk.listed()) == ["active", "expired"]


# Fails if the grace is taken even where the key ends before it.
def test_rotation_never_lengthens_a_key(desk):
    soon = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)  # noqa: TID251 - held against the real clock
    desk(*ONE, "--expires", soon.isoformat())
    assert desk("rotate", "k_1", "--grace", "7d", "--id", "k_2")[0] == 0
    assert {datetime.fromisoformat(one["expires"]) for one in desk.listed()} == {soon}


# Fails if the moment is not written, or anything but the plan is changed with it.
def test_another_plan_holds_from_now_on_and_all_else_stays(desk):
    desk(*ONE, "--zone", "Asia/Tokyo")
    (before,) = desk.listed()
    code, out, err = desk("plan", "k_1", "pro")
    (after,) = desk.listed()
    assert (code, out) == (0, "")
    assert f"k_1 has the plan pro since {after['plan_since']}, before that free" in err
    assert after == {**before, "plan": "pro", "plan_since": after["plan_since"]}
    since = datetime.now(UTC) - datetime.fromisoformat(after["plan_since"])  # noqa: TID251 - held against the real clock
    assert timedelta(0) <= since < timedelta(minutes=1)


# Fails if the moment is written whatever the plan was.
def test_the_same_plan_again_keeps_its_moment(desk):
    desk(*ONE)
    assert desk("plan", "k_1", "free") == (0, "", "k_1 already has the plan free; nothing was changed\n")
    assert desk.listed()[0]["plan_since"] == ""
    desk("plan", "k_1", "pro")
    (before,) = desk.listed()
    _, out, _ = desk("plan", "k_1", "pro", "--json")
    assert json.loads(out) == before
    assert desk.listed() == [before]


def test_a_rotated_key_stands_on_its_plan_since_the_same_moment(desk):
    desk(*ONE)
    desk("plan", "k_1", "pro")
    desk("rotate", "k_1", "--id", "k_2")
    assert len({(one["plan"], one["plan_since"]) for one in desk.listed()}) == 1


def test_a_plan_without_a_name_is_wrong_usage(desk):
    desk(*ONE)
    code, _, err = desk("plan", "k_1", "a\nb")
    assert code == 2
    assert "PLAN is 1 to 256 printable" in err
    assert desk.listed()[0]["plan"] == "free"


# Fails if a plan is taken as it is written: its customer is answered 403 from then on.
def test_an_unknown_plan_is_refused_with_the_nearest_one(desk):
    desk(*ONE)
    code, _, err = desk("plan", "k_1", "pr0")
    assert code == 2
    assert f"PLAN: 'pr0' is not defined; did you mean 'pro'? (policies: {desk.policies}; --force skips this)" in err
    assert desk("new", "--customer", "c", "--plan", "nosuch")[0] == 2
    assert [one["plan"] for one in desk.listed()] == ["free"]


def test_a_plan_that_is_defined_later_can_be_forced(desk):
    assert desk(*ONE, "--plan", "later", "--force")[0] == 0
    assert desk("plan", "k_1", "latest", "--force")[0] == 0
    assert desk.listed()[0]["plan"] == "latest"


def test_where_policies_cannot_be_read_a_plan_is_taken_with_a_warning(desk):
    desk.policies.unlink()
    code, _, err = desk(*ONE)
    assert code == 0
    line = desk.config.read_text().splitlines().index("policies: policies.yaml") + 1
    assert f"warning: plans are not checked: {desk.config}:{line}: policies: {desk.policies} cannot be read" in err


def test_a_key_that_can_be_guessed_is_not_registered(desk):
    desk(*ONE)
    code, _, err = desk(*ONE[:-1], "k_2", "--stdin", stdin="seven77\n")
    assert code == 2
    assert "--stdin: the key has fewer than 8 characters: it can be guessed" in err
    assert [one["id"] for one in desk.listed()] == ["k_1"]


def test_keys_are_searched_by_text_customer_plan_and_state(desk):
    desk(*ONE, "--name", "Old phone")
    desk("new", "--customer", "cust-2", "--plan", "pro", "--id", "k_2")
    desk("revoke", "k_2")
    for arguments, ids in [
        (("PHONE",), ["k_1"]), (("cust-",), ["k_1", "k_2"]), (("--plan", "pro"), ["k_2"]),
        (("--status", "active"), ["k_1"]), (("cust-1", "--customer", "cust-1"), ["k_1"]),
    ]:  # fmt: skip
        code, out, _ = desk("search", *arguments, "--json")
        assert (code, [one["id"] for one in json.loads(out)]) == (0, ids), arguments
    assert desk("search", "phone", "--customer", "cust-2") == (1, "", "no key matches\n")


# Fails if a key is looked up by its hash without the pepper.
def test_a_key_is_shown_by_its_id_or_by_itself(desk):
    _, key, _ = desk(*ONE)
    code, out, _ = desk("show", "k_1")
    assert code == 0
    assert "customer    cust-1\n" in out
    assert "expires     -\n" in out
    assert desk("show", "--stdin", stdin=key) == (0, out, "")
    assert json.loads(desk("show", "k_1", "--json")[1]) == desk.listed()[0]
    assert desk("show", "k_9")[::2] == (1, "sidecar: no key has the id k_9; `sidecar keys list` shows all ids\n")
    assert desk("show", "--stdin", stdin="other-0123\n")[::2] == (
        1,
        "sidecar: this key is not registered; `sidecar keys list` shows all keys\n",
    )
    assert desk("show")[0] == desk("show", "k_1", "--stdin")[0] == 2


def test_a_key_that_has_ended_gets_no_other_plan(desk):
    desk(*ONE)
    desk("revoke", "k_1")
    assert desk("plan", "k_1", "pro")[::2] == (1, "sidecar: the key k_1 is revoked; make a new one\n")


def test_a_key_that_has_ended_is_not_rotated(desk):
    desk(*ONE)
    desk("revoke", "k_1")
    assert desk("rotate", "k_1")[::2] == (1, "sidecar: the key k_1 is revoked; make a new one\n")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("new",), "Missing option '--customer'"),
        ((*ONE, "--zone", "Mars/Base"), "--zone is an IANA time zone, as in Europe/Berlin"),
        ((*ONE, "--expires", "soon"), "--expires is a moment with its offset"),
        (("new", "--customer", "a\nb", "--plan", "p"), "--customer is 1 to 256 printable"),
        ((*ONE, "--plan", "fre"), "--plan: 'fre' is not defined; did you mean 'free'?"),
        (("rotate", "k_1", "--grace", "1 moon"), "--grace: '1 moon' is not a quantity with a unit"),
        (("rotate", "k_1", "--grace", "99999999999d"), "--grace: "),
        (("revoke",), "Missing argument 'IDS...'"),
        (("plan", "k_1"), "Missing argument 'PLAN'"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what(file_desk, arguments, what):
    code, out, err = file_desk(*arguments)
    assert (code, out) == (2, "")
    assert what in err


def test_a_wrong_key_file_is_status_2_and_says_where(file_desk):
    file_desk.file.write_text("keys:\n  - { id: a }\n")
    code, _, err = file_desk("list")
    assert code == 2
    assert f"{file_desk.file}:2: keys[0].hash: is missing" in err
    assert file_desk(*ONE)[0] == 2
    assert file_desk.file.read_text() == "keys:\n  - { id: a }\n"


def test_a_redis_that_is_away_is_status_1_in_one_line(tmp_path, monkeypatch, capsys, make_redis):
    server = make_redis()
    desk = Desk(tmp_path, f"keys: {{ redis: true }}\nredis: {{ url: '{server.url}' }}\n", monkeypatch, capsys)
    server.kill()
    for arguments in (("list",), ONE, ("revoke", "k_1"), ("rotate", "k_1"), ("plan", "k_1", "p")):
        code, out, err = desk(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith("sidecar: the key store did not answer: Error 111 connecting to 127.0.0.1:")


# Fails if the class of the error is all that is shown: a wrong password looks like an outage then.
def test_a_wrong_password_of_redis_is_shown_as_what_it_is(tmp_path, monkeypatch, capsys, make_redis):
    server = make_redis()
    url = server.url.replace("redis://", "redis://gw:wrong@")
    desk = Desk(tmp_path, f"keys: {{ redis: true }}\nredis: {{ url: '{url}' }}\n", monkeypatch, capsys)
    code, _, err = desk("list")
    assert code == 1
    assert "the key store refuses the user of redis.url: invalid username-password pair" in err
    assert "wrong@" not in err


def test_a_list_for_a_pipe_is_tab_separated_and_whole(file_desk):
    file_desk(*ONE, "--name", "x" * 200)
    _, out, _ = file_desk("list")
    assert out == f"k_1\tcust-1\tapp-1\tfree\tactive\t\t{'x' * 200}\n"


def test_other_entries_and_comments_stay_as_they_are(file_desk):
    entry = f"id: mine\n    hash: '{stored(bytes(32))}'\n    customer: c\n    subject: s\n    plan: p\n"
    ours = f"# by hand\nkeys:\n  # ours\n  - {entry}"
    file_desk.file.write_text(ours)
    file_desk(*ONE)
    file_desk("revoke", "k_1")
    assert file_desk.file.read_text().startswith(ours)


# Fails if a message repeats what it was given.
def test_no_message_repeats_a_credential_or_a_hash(desk, caplog):
    caplog.set_level(logging.DEBUG)
    canary = make_key(b"canary canary canary"[:20])
    told = [
        desk(*ONE, "--stdin", stdin=canary),
        desk(*ONE, "--stdin", stdin=canary),
        desk(*ONE[:-1], canary),
        desk(*ONE, "--name", canary),
        desk("list"),
        desk("list", "--json"),
        desk("rotate", "k_1"),
        desk("revoke", "k_1"),
    ]
    text = str(told) + caplog.text
    assert canary not in text
    assert digest(canary.encode(), b"salt").hex()[:12] not in text


def test_the_installed_command_works(tmp_path):
    command = [sys.executable, "-m", "sidecar", "keys", *ONE, "-c", str(tmp_path / "sidecar.yaml")]
    (tmp_path / "sidecar.yaml").write_text("keys: { file: keys.yaml }\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stdout)) == (0, 38), done.stderr
