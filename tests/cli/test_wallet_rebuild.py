"""Redis is emptied, and everything that the records know is there again: Shown by 2 of the ledger's issue."""

import asyncio
import json
import re

import pytest

from sidecar.core.identity import digest, make_key, stored
from tests.app.node import node
from tests.edge.ledger.events import event
from tests.edge.ledger.ledgers import load
from tests.ledger.policies import HEALTH_EXCLUDED

POLICY = (
    HEALTH_EXCLUDED
    + """\
meters:
  bytes: { value: response.bytes }
plans:
  pro:
    currency: usd
    prices: { bytes: { graduated: [{ up_to: 300, price: "0.01" }, { price: "0.002" }] } }
    limits:
      - { id: monthly, meter: requests, quota: 100000/month, scope: customer, zone: customer, anchor: subscription }
      - { id: by_key, meter: bytes, quota: 1000000/month, scope: key }
      - { id: daily, meter: requests, window: 100000/24h, scope: subject, fixed: true }
      - { id: sliding, meter: requests, window: 100000/12h, scope: key }
      - { id: rate, meter: requests, rate: 10000/s, burst: 10000, scope: key }
      - { id: credit, balance: usd }
"""
)

KEYS = [make_key(f"{number:020}".encode()) for number in range(6)]
ZONES = ["Asia/Kathmandu", "America/New_York", "UTC"]
COUNTER = re.compile(rb"sc:\{[^}]*\}:[qw]=")
pytestmark = pytest.mark.redis


@pytest.fixture
def sidecar(in_process):
    """Run a command, hold it to its exit status, and return what it printed."""

    def run(*words, status=0):
        code, out, err = in_process(*words)
        assert code == status, (words, out, err)
        return out, err

    return run


def write_documents(folder):
    """Six keys of three customers with zones and anchors of their own."""
    (folder / "policy.yaml").write_text(POLICY)
    keys = [
        f"  - {{ id: k{number}, hash: {stored(digest(key.encode()))!r}, customer: c{number % 3}, "
        f"subject: s{number % 2}, plan: pro, zone: {ZONES[number % 3]}, anchor: '2026-01-{31 - number % 3}' }}\n"
        for number, key in enumerate(KEYS)
    ]
    (folder / "some_keys.yaml").write_text("keys:\n" + "".join(keys))
    (folder / "some_keys.yaml").chmod(0o600)


def complete_settings(folder):
    path = folder / "sidecar.yaml"
    text = path.read_text().replace("policies: p.yaml", "policies: policy.yaml")
    path.write_text(text.replace("file: keys.yaml", "file: some_keys.yaml"))


def counters(cli):
    """The counters of windows that are not 0."""
    names = [key for key in cli.scan_iter("sc:*") if COUNTER.match(key)]
    return {name: int(cli.get(name)) for name in names if int(cli.get(name))}


def balances(sidecar):
    words = "--unit", "usd", "--json", "--verify", "--customer"
    shown = [sidecar("wallet", "show", *words, f"c{number}") for number in range(3)]
    return [json.loads(out)["balance"] for out, _ in shown]


def grant(sidecar, customer, name, amount, *more):
    sidecar("wallet", "grant", "--customer", customer, "--unit", "usd", "--amount", amount, "--id", name, *more)


async def use(running, sidecar):
    """Grants, requests of six keys on several paths, a void and a correction; the postings that there will be."""
    for number in range(3):
        await asyncio.to_thread(grant, sidecar, f"c{number}", f"first-{number}", "200", "--expires", "never")
    for start in range(0, 300, 30):
        asked = range(start, start + 30)
        answers = [running.ask("/health" if number % 7 == 0 else "/hello", KEYS[number % 6]) for number in asked]
        assert {status for status, _ in await asyncio.gather(*answers)} == {200}
    await asyncio.to_thread(grant, sidecar, "c0", "second-0", "7", "--expires", "2030-01-01", "--priority", "5")
    words = "--customer", "c1", "--unit", "usd", "--grant", "first-1"
    await asyncio.to_thread(sidecar, "wallet", "void", *words)
    usage = [json.loads(line) for line in running.records()]
    billed = [each["id"] for each in usage if each["type"] == "sidecar.usage.v1" and each["data"]["billable"]]
    why = "--reason", "test", "--actor", "ann"
    void, _ = await asyncio.to_thread(sidecar, "records", "void", billed[0], *why)
    correct, _ = await asyncio.to_thread(sidecar, "records", "correct", billed[1], "--units", "bytes=-2", *why)
    await asyncio.gather(*[running.ask("/hello", key) for key in KEYS])  # their worker reads their ledgers
    settles = {("settle", each) for each in (*billed, void.strip(), correct.strip())}
    return settles | {("grant", "second-0"), ("void", "first-1")}


async def until_on_stream(running, names):
    """Wait until there are postings of these grants and exchanges."""
    async with asyncio.timeout(40):
        while True:
            postings = [json.loads(body) for body in running.records() if b"sidecar.posting.v1" in body]
            seen = {(each["data"]["change"], each["data"].get("grant", each.get("causationid"))) for each in postings}
            if names <= seen:
                return
            await asyncio.sleep(0.1)


async def test_after_redis_was_emptied_counters_and_wallets_are_what_they_were(tmp_path, redis_clean, sidecar):
    # Fails if: excluded records charge quotas, a window is computed in UTC, a void is left out, or the settles of
    # a balance are.
    write_documents(tmp_path)
    settings = f"redis: {{ url: '{redis_clean.url}', timeout_ms: 5000 }}\n"  # a busy machine is no outage
    documents = {"SIDECAR_POLICIES": "policy.yaml", "SIDECAR_KEYS__FILE": "some_keys.yaml"}
    async with node(tmp_path, settings, **documents) as running:
        complete_settings(tmp_path)
        await until_on_stream(running, await use(running, sidecar))
        assert await running.stop() == 0
    load(tmp_path / "data" / "ledger", running.records())
    await asyncio.to_thread(_lose_and_rebuild, sidecar, redis_clean.cli)


def _lose_and_rebuild(sidecar, cli):
    before, credit = counters(cli), balances(sidecar)
    assert len(before) >= 3 + 6 + 4 + 6 + 3
    assert sidecar("counters", "drift")[0] == ""
    cli.flushall()
    drifted, _ = sidecar("counters", "rebuild", "--dry-run", status=1)
    assert len(drifted.splitlines()) == len(before)
    assert counters(cli) == {}
    sidecar("counters", "rebuild")
    assert counters(cli) == before
    assert all(cli.pttl(key) > 0 for key in before)
    sidecar("wallet", "rebuild", "--from-ledger", "--all")
    assert balances(sidecar) == credit
    out, _ = sidecar("counters", "drift", "--json")
    assert json.loads(out)["counters"] == []


SETTINGS = "policies: policy.yaml\nkeys: { file: some_keys.yaml }\n"
ACME = ("--customer", "acme", "--unit", "usd")


def posting(number, change, delta, **data):
    fields = {"customer": "acme", "unit": "usd", "digits": 9, "change": change, "delta": delta, "balance": 0, **data}
    return event(number, "posting", fields)


@pytest.fixture
def lost(tmp_path, redis_clean):
    """A ledger with the postings of a wallet that Redis does not have."""
    write_documents(tmp_path)
    (tmp_path / "sidecar.yaml").write_text(SETTINGS + f"redis: {{ url: '{redis_clean.url}' }}\n")
    expired = posting(3, "rollover", -(10**9), grant="old")
    grants = [posting(1, "grant", 5 * 10**9, grant="g1"), posting(2, "grant", 3 * 10**9, grant="old")]
    load(tmp_path / "data" / "ledger", [*grants, expired])
    return tmp_path


def test_a_wallet_that_is_used_again_is_not_replaced_by_accident(lost, redis_clean, sidecar):
    # Fails if a purchase after the loss is overwritten, or one that is repeated is granted twice.
    out, err = sidecar("wallet", "rebuild", "--from-ledger", *ACME, "--dry-run", "--json", status=1)
    assert json.loads(out) == [
        {"customer": "acme", "unit": "usd", "was": "0", "balance": "7", "grants": 2, "done": ""}
    ]  # fmt: skip
    assert "old has rolled over, and until when is not on the stream: it now never expires" in err
    assert err.splitlines()[-1] == "1 wallet would be restored"
    assert redis_clean.cli.keys("sc:{acme}*") == []
    _, err = sidecar("wallet", "rebuild", "--from-ledger", *ACME)
    assert err.splitlines()[-1] == "1 wallet restored"
    words = "--amount", "5", "--expires", "never"
    _, err = sidecar("wallet", "grant", *ACME, *words, "--id", "g1")
    assert "already exists" in err
    sidecar("wallet", "grant", *ACME, *words, "--id", "g2")
    # Fails if a comparison counts wallets that would be refused.
    for words, number in (((), "0 wallets"), (("--replace",), "1 wallet")):
        _, err = sidecar("wallet", "rebuild", "--from-ledger", "--all", "--dry-run", *words, status=1)
        assert err.splitlines()[-1] == f"{number} would be restored"
    out, err = sidecar("wallet", "rebuild", "--from-ledger", "--all", status=1)
    assert "is not empty in Redis; --replace replaces it" in err
    _, err = sidecar("wallet", "rebuild", "--from-ledger", "--all", "--replace", status=1)
    assert "postings that are not on the stream yet" in err
    shown, _ = sidecar("wallet", "show", *ACME, "--json")
    assert json.loads(shown)["balance"] == "12"


def test_wrong_usage_says_what_is_right(lost, sidecar):
    for words, text in (
        (("--from-ledger",), "--customer and --unit, or --all"),
        (("--customer", "acme"), "--customer and --unit"),
        (("--all",), "are for --from-ledger"),
        (("--from-ledger", "--all", "--unit", "usd"), "or --all"),
    ):
        _, err = sidecar("wallet", "rebuild", *words, status=2)
        assert text in err
    _, err = sidecar("wallet", "rebuild", "--from-ledger", "--customer", "x", "--unit", "usd", status=1)
    assert "the ledger has no postings of x in usd; load it first" in err
    (lost / "sidecar.yaml").write_text(SETTINGS)
    _, err = sidecar("wallet", "rebuild", "--from-ledger", "--all", status=2)
    assert "restores its wallets from its journal" in err
