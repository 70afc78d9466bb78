"""A void changes the counter of its period on a real Redis, where Redis still has it."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from sidecar.app.adjusting import _settle, adjust, find_adjustment, is_repeatable
from sidecar.config.settings import load_settings
from sidecar.core.limits import wallet_name
from sidecar.core.price.wallet import Grant, balance
from sidecar.core.record.changes import History, void_of
from sidecar.core.window import calendar_window
from sidecar.edge.clock import SystemClock
from sidecar.embedded.access import open_state
from sidecar.embedded.counters import EmbeddedCounterValues
from sidecar.loading.documents import load_policies
from sidecar.wallets.opening import open_wallets

POLICY = """\
plans:
  free:
    limits: [{ id: monthly, meter: requests, quota: 10000/month, scope: customer }]
"""
KEY = """\
keys:
  - { id: k_1, hash: "sha256:%s", customer: acme, subject: acme, plan: free, status: revoked }
""" % ("0" * 64)


@pytest.fixture
def node(tmp_path):
    def made(redis):
        (tmp_path / "p.yaml").write_text(POLICY)
        (tmp_path / "keys.yaml").write_text(KEY)
        (tmp_path / "keys.yaml").chmod(0o600)
        path = tmp_path / "sidecar.yaml"
        path.write_text(f"policies: p.yaml\nkeys: {{ file: keys.yaml }}\n{redis}")
        return load_settings(path, {})

    return made


def void(time=None, **more):
    """The void of a record of `time`; the default is now."""
    moment = time or datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC)
    window = calendar_window("month", "UTC", 0, int(moment.timestamp() * 1_000_000))
    data = {
        "customer": "acme", "key_id": "k_1", "plan": "free@1", "route": "default", "outcome": "ok", "billable": True,
        "billable_reason": "plan:free", "usage": {"requests": 3}, "period_time": f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}",
        "decision": {"mode": "exact", "limits": [{"id": "monthly", "period": window.id, "used": 3, "limit": 10000}]},
    }  # fmt: skip
    record = {"type": "sidecar.usage.v1", "id": "01M8N97TG90000000000000001", "subject": "acme", "data": data | more}
    return void_of(History(record), "test", "ann")


@pytest.mark.redis
async def test_the_quota_of_the_period_is_given_back_once(node, make_redis):
    # Fails if the id is not the void's (a second void of a repeated command counts again), or the script is not loaded.
    server = make_redis()
    settings, change = node(f"redis: {{ url: '{server.url}' }}\n"), void()
    [key] = find_adjustment(settings, change).checks.entries[0].keys
    server.cli.set(key, 10, px=600_000)
    assert (await adjust(settings, change)).text == "counters of its period changed: monthly -3"
    [marks] = server.cli.keys("sc:*:ids:*")
    server.cli.delete(marks)  # as after three minutes
    assert (await adjust(settings, change)).text == "counters of its period had changed before: monthly -3"
    assert server.cli.get(key) == b"7"
    [mark] = server.cli.keys("sc:*:adjusted:*")
    assert 86_400_000 < server.cli.pttl(mark) <= 2 * 86_400_000


@pytest.mark.redis
async def test_a_period_whose_counter_has_gone_has_nothing_to_give_back(node, make_redis):
    # Fails if an expired counter is made again.
    server = make_redis()
    settings = node(f"redis: {{ url: '{server.url}' }}\n")
    change = void(datetime(2024, 5, 7, tzinfo=UTC))
    [key] = find_adjustment(settings, change).checks.entries[0].keys
    await adjust(settings, change)
    assert server.cli.get(key) is None


PRICED = """\
plans:
  free:
    currency: usd
    prices: { requests: { per_unit: "0.01" } }
    limits: [{ id: credit, balance: usd }]
"""


@pytest.mark.redis
async def test_a_balance_gets_back_what_the_record_was_charged(node, make_redis, tmp_path):
    # Fails if the balance is not among the checks: the counter would move, and the wallet would not. And if the wallet
    # is not noted: its posting would not be on the stream before the customer's next request.
    server = make_redis()
    settings, change = node(f"redis: {{ url: '{server.url}' }}\n"), void()
    (tmp_path / "p.yaml").write_text(PRICED)
    async with open_wallets(settings) as wallets:
        wallet = wallets("acme", wallet_name("usd", 9))
        await wallet.grant(Grant("g", 0, 0, 0, 10**10, 10**10, 0, 0, 0))
        given_back = find_adjustment(settings, change)
        charge = given_back._replace(actual=tuple(-units for units in given_back.actual))
        await _settle(settings.redis, b"01M8N97TG90000000000000002", charge)
        assert balance((await wallet.read()).wallet) == 10**10 - 3 * 10**7
        server.cli.delete("sc:wallets:unread")
        assert (await adjust(settings, change)).text.endswith("; wallet usd +0.03")
        assert balance((await wallet.read()).wallet) == 10**10
    assert server.cli.hkeys("sc:wallets:unread") == [b"sc:{acme}:wallet:acme:usd"]


async def test_why_nothing_is_given_back_is_said(node, monkeypatch):
    monkeypatch.setattr("sidecar.app.adjusting.TIMEOUT_S", 0.1)
    settings = node("redis: { url: 'redis://127.0.0.1:1' }\n")
    failed = await adjust(settings, void())
    assert failed == ("nothing given back yet: Redis did not answer; repeat the command within a day", False)
    assert "the key k_2 is not registered any more" in (await adjust(settings, void(key_id="k_2"))).text
    refused = await adjust(settings, void(decision=None))
    assert refused == ("nothing given back: no limit with a window counted it", True)


async def test_a_stopped_node_without_redis_gives_back_in_its_files(node):
    # Fails if the request has another window, caller or limit than those that were counted.
    settings, change = node(""), void()
    key = find_adjustment(settings, change).checks.entries[0].keys[0]
    policies = load_policies(settings)
    async with open_state(settings.journal.dir, lambda: policies.policy) as ask:
        counters = EmbeddedCounterValues(ask)
        await counters.set([(key, 10, SystemClock().now_us() + 600_000_000)], is_exact=False)
    texts = [(await adjust(settings, change)).text for _ in range(2)]
    assert texts == [f"counters of its period {done}: monthly -3" for done in ("changed", "had changed before")]
    async with open_state(settings.journal.dir, lambda: policies.policy) as ask:
        assert await EmbeddedCounterValues(ask).read([key]) == [7]


async def test_a_worker_with_another_policy_gives_nothing_back_and_says_so(node, monkeypatch):
    # Fails if the answer of the worker is dropped: the message has the units that this command would give back.
    settings, change = node(""), void()

    async def ask(_request):
        return {"adjusted": []}

    @asynccontextmanager
    async def other(*_):
        yield ask

    monkeypatch.setattr("sidecar.app.adjusting.open_state", other)
    adjusted = await adjust(settings, change)
    assert (adjusted.is_done, "the policy of the node's worker has none of these limits" in adjusted.text) == (
        False,
        True,
    )


def test_a_change_can_be_repeated_for_a_day_and_not_where_a_clock_is_days_ahead():
    day_us = 86_400_000_000
    assert [
        is_repeatable(recorded, 10 * day_us) for recorded in (10 * day_us, 9 * day_us + 1, 10 * day_us + 60_000_000)
    ] == [True] * 3
    assert not any(is_repeatable(recorded, 10 * day_us) for recorded in (9 * day_us, 11 * day_us))
