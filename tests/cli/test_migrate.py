"""`sidecar migrate` on what version 0.1 left: in Redis, in a journal, in a key file, and without Redis."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.fixtures import previous
from tests.servers.redis import wait_until


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
    assert f"redis 127.0.0.1:{redis_clean.port}: 17 keys of version 0.1 (1 alert, " in out
    assert out.endswith("to be moved: stop all nodes, then run this without --check\n")
    status, out, _ = sidecar("migrate", "-c", "sidecar.yaml", **where)
    assert (status, out.endswith(" moved\nnext: start the nodes of this version\n")) == (0, True)
    status, out, _ = sidecar("migrate", "--check", "-c", "sidecar.yaml", **where)
    assert (status, "no key has a name of version 0.1\n" in out) == (0, True)
    status, out, _ = sidecar("wallet", "show", "--customer", "prepaid", "--unit", "usd", "--ledger", "50", "--json",
                             "-c", "sidecar.yaml", **where)  # fmt: skip
    assert status == 0
    before = previous.redis_state()["wallet"]
    shown = json.loads(out)
    assert {name: shown[name] for name in before} == before


@pytest.mark.redis
def test_keys_that_stay_are_named_with_the_reason_and_what_to_do(sidecar, folder, redis_clean):
    # Fails if the status is 0, or if the line of keys that were moved counts those that were not.
    redis_clean.cli.hset("sc:{c}:wallet:usd", "debt", 5)
    redis_clean.cli.hset("sc:{c}:wallet:c:usd", "debt", 7)
    redis_clean.cli.zadd("sc:{c}:burst:kk", {"id": 7})
    redis_clean.cli.set("sc:{c}:monthly:cc:2026-11", 7)
    for arguments, done in ((["--check"], "to be moved: stop all nodes, then run this without --check"), ([], "moved")):
        status, out, err = sidecar("migrate", *arguments, "-c", "sidecar.yaml", SIDECAR_REDIS__URL=redis_clean.url)
        assert (status, err) == (1, "")
        lines = out.splitlines()[2:]
        assert lines[0] == f"redis 127.0.0.1:{redis_clean.port}: 1 key of version 0.1 (1 quotas) {done}"
        assert lines[1] == f"redis 127.0.0.1:{redis_clean.port}: 2 keys of version 0.1 cannot be moved"
        assert sorted(lines[2:4]) == [
            "  sc:{c}:burst:kk: its type is zset, that of rates is string",
            "  sc:{c}:wallet:usd: sc:{c}:wallet:c:usd has a value as well, and wallet cannot be added up",
        ]
        assert "then run this again: docs/operations.md says which is right" in lines[4]


@pytest.mark.redis
def test_of_many_keys_that_stay_twenty_are_printed_and_json_has_more(sidecar, folder, redis_clean):
    redis_clean.cli.mset({f"sc:{{{number}}}:monthly:cc:2026-11": "many" for number in range(30)})
    where = {"SIDECAR_REDIS__URL": redis_clean.url}
    status, out, _ = sidecar("migrate", "-c", "sidecar.yaml", **where)
    assert (status, out.count("is not a number")) == (1, 20)
    assert "  and 10 more; --json lists the first 100\n" in out
    status, out, _ = sidecar("migrate", "--json", "-c", "sidecar.yaml", **where)
    assert (status, json.loads(out)["redis"]["stayed"], len(json.loads(out)["redis"]["conflicts"])) == (1, 30, 30)


@pytest.mark.redis
def test_a_kill_on_the_way_and_a_second_run_leave_the_same_as_one_run(folder, redis_clean):
    # Fails if units are added up and the old key is deleted in two steps: what both versions counted would be doubled.
    write, number = redis_clean.cli.pipeline(transaction=False), 10_000
    for each in range(number):
        write.mset({f"sc:{{{each}}}:monthly:c{each}:2026-11": each, f"sc:{{{each}}}:q=monthly:c{each}:2026-11": 7})
    write.execute()
    old = [f"sc:{{{each}}}:monthly:c{each}:2026-11" for each in range(number)]
    command = [sys.executable, "-m", "sidecar", "migrate", "-c", "sidecar.yaml"]
    environment = os.environ | {"SIDECAR_REDIS__URL": redis_clean.url}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE) as run:
        wait_until(lambda: redis_clean.cli.dbsize() < 2 * number, "the first move")
        run.kill()
    assert 0 < redis_clean.cli.exists(*old) < number
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    assert b" moved\n" in done.stdout
    names = [f"sc:{{{each}}}:q=monthly:c{each}:2026-11" for each in range(number)]
    assert redis_clean.cli.mget(names) == [b"%d" % (each + 7) for each in range(number)]
    assert redis_clean.cli.dbsize() == number


@pytest.mark.redis
def test_a_terminal_shows_how_far_it_is_and_the_report_begins_on_a_new_line(folder, redis_clean):
    redis_clean.cli.mset({f"sc:{{{each}}}:monthly:c{each}:2026-11": 1 for each in range(1_000)})
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "sidecar", "migrate", "-c", "sidecar.yaml", "--check"]
    environment = os.environ | {"SIDECAR_REDIS__URL": redis_clean.url}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=its_end, stderr=its_end):
        os.close(its_end)
        shown = b""
        with suppress(OSError):  # Linux says so where the other end is closed
            while piece := os.read(terminal, 10_000):
                shown += piece
    os.close(terminal)
    assert shown.startswith(b"\r1,000 keys read\r\njournal: none in ")


@pytest.mark.parametrize(
    "scheme", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/x/0"]
)
def test_a_redis_that_does_not_answer_is_one_line_and_status_1(sidecar, folder, scheme):
    # Fails if an error of redis-py is not caught, or is printed with the clients that it names.
    status, out, err = sidecar("migrate", "-c", "sidecar.yaml", SIDECAR_REDIS__URL=scheme)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"sidecar: redis: [^\n<]{10,200}\n", err)


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
    assert "next: " not in out


def test_a_folder_without_journals_is_named(sidecar, folder):
    # Fails if the wrong settings file looks as if all were done.
    status, out, _ = sidecar("migrate", "-c", "sidecar.yaml")
    assert status == 0
    assert out == (
        f"journal: none in {folder / 'data' / 'journal'} (journal.dir)\n"
        f"key file {folder / 'keys.yaml'}: is read as it is\nnext: start the nodes of this version\n"
    )


def test_a_journal_that_cannot_be_opened_is_said_beside_all_else(sidecar, folder):
    # Fails if an error of the file system ends the command.
    previous.copy_journal("journal", folder / "data" / "journal")
    segment = next((folder / "data" / "journal" / "0").glob("*.seg"))
    segment.unlink()
    segment.mkdir()
    status, out, err = sidecar("migrate", "--check", "-c", "sidecar.yaml")
    assert (status, err) == (1, "")
    assert re.search(r"^journal 0: .*Is a directory.*\nkey file .* is read as it is\n", out)
