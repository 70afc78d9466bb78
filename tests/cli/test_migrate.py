"""`sidecar migrate` on what version 0.1 left: in Redis, in a journal, in a key file, and without Redis."""

import json
import shutil

import pytest

from tests.fixtures import previous


@pytest.fixture
def upgraded(folder):
    """A folder whose settings are those of the node on Redis of version 0.1."""
    previous.copy_journal("journal", folder / "data" / "journal")
    shutil.copy(previous.KEYS, folder / "keys.yaml")
    return folder


@pytest.mark.redis
def test_what_is_to_be_done_is_said_then_done_and_then_nothing_is_left(sidecar, upgraded, redis_clean):
    # Fails if --check moves keys, or its exit status does not say that there are some.
    where = {"SIDECAR_REDIS__URL": redis_clean.url}
    previous.load_redis(redis_clean.cli)
    status, out, _ = sidecar("migrate", "--check", "-c", "sidecar.yaml", **where)
    assert status == 1
    assert out.startswith(f"journal 0: is read as it is\nkey file {upgraded / 'keys.yaml'}: is read as it is\n")
    assert "redis: 17 keys of version 0.1 (1 alert, " in out
    assert out.endswith("to be moved: run this without --check\n")
    status, out, _ = sidecar("migrate", "-c", "sidecar.yaml", **where)
    assert (status, out.endswith(" moved\n")) == (0, True)
    status, out, _ = sidecar("migrate", "--check", "-c", "sidecar.yaml", **where)
    assert (status, out.endswith("redis: no key has a name of version 0.1\n")) == (0, True)
    status, out, _ = sidecar("wallet", "show", "--customer", "prepaid", "--unit", "usd", "--ledger", "50", "--json",
                             "-c", "sidecar.yaml", **where)  # fmt: skip
    assert status == 0
    before = previous.redis_state()["wallet"]
    shown = json.loads(out)
    assert {name: shown[name] for name in before} == before


@pytest.mark.redis
def test_a_conflict_is_named_and_the_exit_status_says_so(sidecar, folder, redis_clean):
    redis_clean.cli.hset("sc:{c}:wallet:usd", "debt", 5)
    redis_clean.cli.hset("sc:{c}:wallet:c:usd", "debt", 7)
    status, out, _ = sidecar("migrate", "-c", "sidecar.yaml", SIDECAR_REDIS__URL=redis_clean.url)
    assert status == 1
    assert "1 key not moved, since the new name has a value as well: sc:{c}:wallet:usd" in out


def test_without_redis_the_state_is_read_as_it_is_and_json_has_all_of_it(sidecar, folder):
    previous.copy_journal("embedded", folder / "data" / "journal")
    status, out, _ = sidecar("migrate", "--check", "--json", "-c", "sidecar.yaml")
    assert status == 0
    assert json.loads(out) == {
        "redis": None, "journals": {"0": ""}, "key_file": {"path": str(folder / "keys.yaml"), "fault": ""}, "state": ""
    }  # fmt: skip


def test_a_key_file_that_cannot_be_read_is_said_and_is_a_failure(sidecar, folder):
    (folder / "keys.yaml").write_text("keys: [{ id: 7 }]\n")
    status, out, _ = sidecar("migrate", "--check", "-c", "sidecar.yaml")
    assert status == 1
    assert f"key file {folder / 'keys.yaml'}: " in out
