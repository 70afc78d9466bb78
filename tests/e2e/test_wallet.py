"""A prepaid wallet under fire: what it pays for is served, all else is 402, and the ledger says where it went."""

import asyncio
import os
import signal
from collections import Counter
from decimal import Decimal

import orjson
import pytest
from aiohttp import web

from tests.e2e.harness import until
from tests.e2e.shop import Customer, api, shop
from tests.e2e.stage import free_port, worker_pid

pytestmark = pytest.mark.redis

ANN = Customer("cust-ann", "prepaid")
CALLS = """\
meters:
  calls: { count: 1, when: { status: 2xx } }
plans:
  prepaid:
    currency: usd
    prices:
      calls: { per_unit: "0.02" }
    limits:
      - { id: credit, balance: usd, over: deny, expiry: 1s, link: "https://example.com/top-up" }
"""
TOKENS = """\
meters:
  output_tokens: { usage: output_total }
routes:
  - id: chat
    match: { methods: [POST], path: /v1/chat/completions }
    usage: openai
    estimate: { output: 100, ceiling: 1000 }
plans:
  prepaid:
    currency: usd
    prices:
      output_tokens: { price: "10.00", per: 1000000 }
    limits:
      - { id: inflight, concurrency: 8, scope: customer }
      - { id: credit, balance: usd, over: deny }
"""
ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


class Gate:
    """An upstream that answers nobody before it is opened; `waiting` of those it has seen."""

    def __init__(self, respond):
        self._respond = respond
        self._open = asyncio.Event()
        self.seen = 0

    async def answer(self, request):
        self.seen += 1
        await request.read()
        await self._open.wait()
        return self._respond()

    def open(self):
        self._open.set()


def begun(asking):
    """A request that is under way; whoever asks awaits it."""
    return asyncio.get_running_loop().create_task(asking)


async def test_of_two_hundred_at_once_exactly_those_are_served_that_the_wallet_pays_for(tmp_path, make_redis):
    """litellm #34732 (N at once all passed), unkey #7000 ("slow down" and "used up" looked alike).

    Mutations: the charge is looked at and taken in two steps; a denial takes its part; the settle charges again.
    """
    gate = Gate(lambda: web.Response(text="served"))
    settings = {
        "WORKERS": "2",
        "LISTEN": f"127.0.0.1:{free_port()}",
        "JOURNAL__DENIALS__PER_LIMIT": "1000",  # a record for each denial
    }
    async with shop(
        tmp_path, CALLS, [ANN], api(("GET", "/{path:.*}", gate.answer)), make_redis().url, **settings
    ) as running:
        await running.grant(ANN, "1.00", "usd")
        asked = [begun(running.ask(ANN, f"/call/{number}")) for number in range(200)]
        await until(lambda: sum(task.done() for task in asked) >= 150, "150 answers while the upstream is silent")
        await until(lambda: gate.seen >= 50, "fifty at the upstream")
        held = await running.wallet(ANN, "usd")
        assert (held["balance"], held["held"], held["holds"]) == ("0", "1", 50)
        gate.open()
        answers = await asyncio.gather(*asked)

        assert Counter(answer.status for answer in answers) == {200: 50, 402: 150}
        refused = [answer for answer in answers if answer.status == 402]
        problem = refused[0].json()
        assert {answer.json()["type"] for answer in refused} == {problem["type"]}
        assert problem["link"] == "https://example.com/top-up"
        assert refused[0].headers["content-type"] == "application/problem+json"
        whose = ("--customer", ANN.name, "--unit", "usd")
        wallet = orjson.loads(await running.sidecar("wallet", "show", *whose, "--verify", "--json"))
        assert (wallet["balance"], wallet["debt"], wallet["held"], wallet["holds"]) == ("0", "0", "0", 0)
        assert (wallet["ledger_sum"], wallet["whole"]) == ("0", True)
        records = await running.records(50)
        assert sum(record["data"]["usage"]["calls"] for record in records) == 50
        denials = await running.records(150, "denial")
        assert {denial["data"]["decision"]["violated"] for denial in denials} == {"credit"}
        assert gate.seen == 50, "a refused request reached the upstream"


async def test_a_top_up_is_felt_within_a_second(tmp_path, make_redis):
    # Mutation: a denial by a balance is remembered until a reset that never comes.
    app = api(("GET", "/{path:.*}", _served))
    async with shop(tmp_path, CALLS, [ANN], app, make_redis().url) as running:
        assert (await running.ask(ANN, "/")).status == 402
        await running.grant(ANN, "0.02", "usd")

        async def admitted():
            while (await running.ask(ANN, "/")).status != 200:
                await asyncio.sleep(0.02)

        await asyncio.wait_for(admitted(), 1.5)
        assert (await running.ask(ANN, "/")).status == 402


async def test_what_the_policy_does_not_count_costs_nothing_however_it_ends(tmp_path, make_redis):
    """eliza #9904 (a reservation stayed on error). Mutation: an ending without settle, which keeps its 0.02."""
    app = api(("GET", "/ok", _served), ("GET", "/broken", _broken), ("GET", "/cut", _cut))
    async with shop(tmp_path, CALLS, [ANN], app, make_redis().url) as running:
        await running.grant(ANN, "0.10", "usd")
        statuses = [(await running.ask(ANN, path)).status for path in ("/broken", "/nowhere", "/ok", "/cut", "/broken")]
        assert statuses == [500, 404, 200, 502, 500]
        await running.records(5)
        wallet = await running.wallet(ANN, "usd")
        assert (wallet["balance"], wallet["holds"]) == ("0.08", 0)


async def test_with_answers_of_unknown_size_the_wallet_ends_as_far_below_zero_as_check_says_and_no_further(
    tmp_path, make_redis
):
    """DEEIX-Chat #477 (settling below zero rolled the usage back).

    The worst case is met: eight at once, each held at 100 tokens, each using 1,000. Mutations: `check` leaves out the
    exchanges under way; the settle stops at zero; the estimate is not held.
    """
    gate = Gate(lambda: web.json_response(completion(1000)))
    async with shop(
        tmp_path, TOKENS, [ANN], api(("POST", "/v1/chat/completions", gate.answer)), make_redis().url
    ) as running:
        (told,) = (await running.check())["balances"]
        bound = Decimal(told["below_zero_in_total"])
        assert told["at_once"] == 8
        await running.grant(ANN, "0.008", "usd")  # 800 tokens
        asked = [begun(running.ask(ANN, "/v1/chat/completions", ASK)) for _ in range(200)]
        await until(lambda: sum(task.done() for task in asked) >= 192, "192 refusals while the upstream is silent")
        await until(lambda: gate.seen >= 8, "eight at the upstream")
        held = await running.wallet(ANN, "usd")
        assert (held["balance"], held["held"], held["holds"]) == ("0", "0.008", 8)
        gate.open()
        answers = await asyncio.gather(*asked)
        assert sum(answer.status == 200 for answer in answers) == 8
        assert {answer.status for answer in answers} <= {200, 402, 429}
        await running.records(8)
        while (after := (await running.ask(ANN, "/v1/chat/completions", ASK)).status) == 429:
            await asyncio.sleep(0.01)  # its slot is given back a moment after its answer
        assert after == 402
        wallet = await running.wallet(ANN, "usd")
        debt = Decimal(wallet["debt"])
        assert debt == Decimal("0.072"), "8 x (1000 - 100) tokens"
        assert debt <= bound
        assert bound - debt <= Decimal("0.00000001"), "the bound is tight, but for rounding"
        assert Decimal(wallet["balance"]) == -debt


async def test_a_debt_is_paid_by_the_next_grant_before_anything_else(tmp_path, make_redis):
    app = api(("POST", "/v1/chat/completions", _completed))
    async with shop(tmp_path, TOKENS, [ANN], app, make_redis().url) as running:
        await running.grant(ANN, "0.001", "usd")
        assert (await running.ask(ANN, "/v1/chat/completions", ASK)).status == 200
        await running.records(1)
        assert (await running.wallet(ANN, "usd"))["debt"] == "0.009"
        await running.grant(ANN, "0.009", "usd")
        assert (await running.wallet(ANN, "usd"))["balance"] == "0"
        assert (await running.ask(ANN, "/v1/chat/completions", ASK)).status == 402


async def test_what_a_killed_worker_held_is_given_back_when_its_time_is_over(tmp_path, make_redis):
    """litellm #27639 (reservations leaked, so honest calls were refused). Mutation: holds never end."""
    gate = Gate(lambda: web.Response(text="served"))
    app = api(("POST", "/held", gate.answer), ("GET", "/ok", _served))
    same_port = {"LISTEN": f"127.0.0.1:{free_port()}"}
    async with shop(tmp_path, CALLS, [ANN], app, make_redis().url, **same_port) as running:
        await running.grant(ANN, "0.02", "usd")
        asked = begun(
            running.ask(ANN, "/held", {})
        )  # a POST: this client sends a GET again when its connection is lost
        await until(lambda: gate.seen, "the exchange at the upstream")
        os.kill(await worker_pid(running.node), signal.SIGKILL)
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever its connection's end looks like to the client
            await asked
        await running.node.until(lambda status: status["ready"])

        async def admitted():
            while True:
                try:
                    if (await running.ask(ANN, "/ok")).status == 200:
                        return
                except OSError:  # the worker is being started again
                    pass
                await asyncio.sleep(0.05)

        await asyncio.wait_for(admitted(), 20)
        records = await running.records(2)
        assert {(record["data"]["outcome"], record["data"]["billable"]) for record in records} == {
            ("crashed", False),
            ("ok", True),
        }
        wallet = await running.wallet(ANN, "usd")
        assert (wallet["balance"], wallet["holds"]) == ("0", 0)
        gate.open()


def completion(tokens):
    """A chat completion in OpenAI's published shape, of so many tokens."""
    message = {"role": "assistant", "content": "x" * 4 * tokens}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_763_692_406,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens},
    }


async def _served(_):
    return web.Response(text="served")


async def _completed(_):
    return web.json_response(completion(1000))


async def _broken(_):
    return web.Response(status=500)


async def _cut(request):
    request.transport.abort()
    return web.Response()
