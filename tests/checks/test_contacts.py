"""Mirrors sidecar/checks/contacts.py."""

import os

import pytest

from sidecar.checks.contacts import contact, persistence_warnings
from sidecar.config.settings import load_settings
from sidecar.edge.redis.inspection import Inspection
from tests.edge.ledger.clickhouses import new_url


def settings(folder, **environment):
    return load_settings(None, {f"SIDECAR_{name}": value for name, value in environment.items()})


@pytest.mark.redis
async def test_a_redis_that_answers_is_named_with_its_version(tmp_path, make_redis):
    server = make_redis()
    result = await contact(settings(tmp_path, REDIS__URL=server.url), stored="wallets")
    assert result.results["redis"].startswith(f"127.0.0.1:{server.port} (version ")
    assert result.errors == []
    assert result.warnings == ["redis: it has no persistence: a restart loses wallets; set appendonly yes"]


@pytest.mark.redis
async def test_a_redis_that_is_away_is_a_warning(tmp_path, make_redis):
    server = make_redis()
    server.kill()
    result = await contact(settings(tmp_path, REDIS__URL=server.url), stored="")
    assert result.errors == []
    assert f"redis at 127.0.0.1:{server.port} did not answer: Error 111" in result.warnings[0]
    assert result.results["redis"].endswith(": failed")


# Fails if a refused user looks like an outage.
@pytest.mark.redis
async def test_a_refused_user_and_a_missing_permission_are_errors(tmp_path, make_redis):
    server = make_redis()
    url = server.url.replace("redis://", "redis://gw:pw@")
    (error,) = (await contact(settings(tmp_path, REDIS__URL=url), stored="")).errors
    assert f"redis at 127.0.0.1:{server.port} refuses the user of redis.url: invalid username-password" in error
    server.cli.execute_command("ACL", "SETUSER", "gw", "on", ">pw", "~sc:*", "&sc:*", "+@all", "-evalsha", "-publish")
    (error,) = (await contact(settings(tmp_path, REDIS__URL=url), stored="")).errors
    assert error == "redis: the user of redis.url may not run EVALSHA, PUBLISH: limits would be decided locally"


@pytest.mark.redis
async def test_an_unknown_certificate_authority_is_an_error(tmp_path, redis_tls):
    url = redis_tls.url.partition("?")[0]
    (error,) = (await contact(settings(tmp_path, REDIS__URL=url), stored="")).errors
    assert "certificate verify failed" in error.lower()


@pytest.mark.parametrize(
    ("policy", "append_only", "snapshots", "warnings"),
    [
        ("noeviction", "1", "3600 1", []),
        ("noeviction", "0", "3600 1", ["redis: it has snapshots only: a crash loses the last changes of wallets"]),
        ("noeviction", "0", "no", ["redis: it has no persistence: a restart loses wallets"]),
        ("allkeys-lru", "1", "", ["redis: maxmemory-policy is allkeys-lru: it may evict counters and wallets"]),
        ("", "", "", ["redis: it has wallets, and its user may not run INFO"]),
    ],
)
def test_a_redis_with_wallets_has_to_keep_them(policy, append_only, snapshots, warnings):
    seen = Inspection("7.0.15", [], policy, append_only, snapshots)
    assert [
        each[: len(start)] for each, start in zip(persistence_warnings(seen, "wallets"), warnings, strict=True)
    ] == warnings


def test_a_redis_with_counters_alone_must_not_evict_them():
    seen = Inspection("7.0.15", [], "volatile-lru", "0", "no")
    assert persistence_warnings(seen, "") == [
        "redis: maxmemory-policy is volatile-lru: it may evict counters; set noeviction"
    ]
    assert persistence_warnings(seen._replace(maxmemory_policy="noeviction"), "") == []


async def test_a_kafka_that_is_away_is_a_warning(tmp_path):
    result = await contact(settings(tmp_path, KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1"), stored="")
    assert result.errors == []
    assert "kafka: its topics could not be checked: " in result.warnings[0]
    assert result.results == {"kafka": "127.0.0.1:1: failed"}


async def test_a_sink_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "deep" / "records.jsonl"
    assert (await contact(settings(tmp_path, SINK__FILE=str(file)), stored="")).results == {"sink": str(file)}
    assert not file.parent.exists()
    monkeypatch.setattr(os, "access", lambda *_: False)
    (error,) = (await contact(settings(tmp_path, SINK__FILE=str(file)), stored="")).errors
    assert error == f"SIDECAR_SINK__FILE: sink.file: {tmp_path} cannot be written by this user"


# Fails if a file is taken for the folder: it is writable, and nothing can be made in it.
async def test_a_sink_below_a_file_is_an_error(tmp_path):
    (tmp_path / "out").write_text("")
    given = settings(tmp_path, SINK__FILE=f"{tmp_path}/out/records.jsonl")
    assert (await contact(given, stored="")).errors == [
        f"SIDECAR_SINK__FILE: sink.file: {tmp_path}/out is not a folder"
    ]


# Fails if the ledger is looked at where no setting names it: a node that does not bill has no such folder.
async def test_a_ledger_that_cannot_be_written_is_an_error_where_it_is_configured(tmp_path):
    file = tmp_path / "out"
    assert "ledger" not in (await contact(settings(tmp_path, SINK__FILE=str(file)), stored="")).results
    given = settings(tmp_path, SINK__FILE=str(file), LEDGER__DIR=str(tmp_path / "ledger"))
    assert (await contact(given, stored="")).results["ledger"] == str(tmp_path / "ledger")
    file.write_text("")
    given = settings(tmp_path, SINK__FILE=str(tmp_path / "r"), LEDGER__DIR=f"{file}/ledger")
    assert (await contact(given, stored="")).errors == [f"SIDECAR_LEDGER__DIR: ledger.dir: {file} is not a folder"]


async def test_a_clickhouse_is_named_with_its_version_and_one_that_is_away_is_a_warning(tmp_path):
    # Fails if a node does not pass its check because ClickHouse is away, or if the password is shown.
    def given(url):
        return settings(tmp_path, SINK__FILE=str(tmp_path / "r"), LEDGER__CLICKHOUSE__URL=url)

    result = await contact(given(new_url()), stored="")
    assert (result.errors, result.warnings) == ([], [])
    assert "(version " in result.results["clickhouse"]
    result = await contact(given("http://me:s3cret@127.0.0.1:9/usage"), stored="")
    assert (result.errors, len(result.warnings), result.results["clickhouse"]) == ([], 1, "failed")
    assert "ledger.clickhouse.url: ClickHouse at 127.0.0.1:9: " in result.warnings[0]
    result = await contact(given("me:s3cret@host"), stored="")
    assert "is not a URL of ClickHouse: write https://user:password@host" in result.errors[0]
    assert "s3cret" not in str(result)
