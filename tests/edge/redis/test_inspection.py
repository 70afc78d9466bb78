"""Mirrors sidecar/edge/redis/inspection.py on a real Redis."""

import re
from pathlib import Path

import pytest

from sidecar.config.addresses import parse_redis_url
from sidecar.edge.redis import inspection
from sidecar.edge.redis.inspection import COMMANDS, inspect

SOURCES = Path(inspection.__file__).parent
CALLED = re.compile(r"call\('([A-Z]+)'")


# Fails if a script calls a command that `sidecar check` does not ask about.
def test_every_command_of_the_scripts_is_inspected():
    called = {name for path in SOURCES.rglob("*.lua") for name in CALLED.findall(path.read_text())}
    assert called
    assert called <= {command[0] for command in COMMANDS}


@pytest.mark.redis
async def test_a_redis_says_what_it_is_and_nothing_is_changed(make_redis):
    server = make_redis()
    seen = await inspect(parse_redis_url(server.url), 5)
    assert re.fullmatch(r"\d+\.\d+\.\d+", seen.version)
    assert seen[1:] == ([], "noeviction", "0", "no")
    assert server.cli.keys("*") == []


@pytest.mark.redis
async def test_the_commands_that_a_user_lacks_are_named(make_redis):
    server = make_redis()
    rights = ("~sc:*", "&sc:*", "+@all", "-@dangerous", "-zadd", "-hset")
    server.cli.execute_command("ACL", "SETUSER", "gw", "on", ">pw", *rights)
    seen = await inspect(parse_redis_url(server.url.replace("redis://", "redis://gw:pw@")), 5)
    assert seen.missing == ["HSET", "ZADD"]
    assert (seen.version, seen.maxmemory_policy, seen.append_only, seen.snapshots) == ("", "", "", "")


@pytest.mark.redis
async def test_a_user_without_the_keys_lacks_all_commands_on_them(make_redis):
    server = make_redis()
    server.cli.execute_command("ACL", "SETUSER", "gw", "on", ">pw", "~other:*", "+@all")
    seen = await inspect(parse_redis_url(server.url.replace("redis://", "redis://gw:pw@")), 5)
    assert {"GET", "EVALSHA", "PUBLISH"} <= set(seen.missing)
    assert "TIME" not in seen.missing
