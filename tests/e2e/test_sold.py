"""The policies that people sell, as they are on disk, with real traffic: what is answered, counted, billed and left.

Where a limit is too far away to be met by a test, its counter is set to just before it: the document stays as it is.
"""

import asyncio
import uuid
from collections import Counter
from decimal import Decimal

import pytest
from aiohttp import web

from tests.e2e.harness import until
from tests.e2e.shop import ROOT, Customer, api, shop
from tests.e2e.stage import free_port

pytestmark = pytest.mark.redis

POLICIES = ROOT / "policies"
EXAMPLES = POLICIES / "examples"


def usage(record):
    """The meters that counted something."""
    return {meter: units for meter, units in record["data"]["usage"].items() if units}


def bill(records):
    return Counter((record["data"]["billable"], record["data"]["billable_reason"]) for record in records)


async def _served(_):
    return web.Response(text="served")


# --- An AI API: tokens by model and kind, from a prepaid credit ------------------------------------------------------

CHAT = "/v1/chat/completions"


def counted(output):
    """100 tokens of input, 40 of them cached, in OpenAI's published shape."""
    return {
        "prompt_tokens": 100,
        "completion_tokens": output,
        "total_tokens": 100 + output,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
    }


async def chat(request):
    """Answers 20 tokens, or as many as it was told to with `max_tokens`."""
    asked = await request.json()
    model, usage = asked["model"] + "-2025-04-14", counted(asked.get("max_tokens", 20))
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_763_692_406, "model": model}
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "Bonjour"}, "finish_reason": "stop"}
        return web.json_response({**base, "choices": [choice], "usage": usage})
    base["object"] = "chat.completion.chunk"
    chunks = [{**base, "choices": [{"index": 0, "delta": {"content": "Bonjour"}, "finish_reason": "stop"}]}]
    if asked.get("stream_options", {}).get("include_usage"):
        chunks = [{**chunk, "usage": None} for chunk in chunks] + [{**base, "choices": [], "usage": usage}]
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for chunk in chunks:
        await answer.write(b"data: " + web.json_response(chunk).body + b"\n\n")
    await answer.write(b"data: [DONE]\n\n")
    return answer


def prompt(model, **more):
    return {"model": model, "messages": [{"role": "user", "content": "Say hello in French."}], **more}


async def test_ai_tokens_are_sold_by_model_and_kind_from_a_prepaid_credit(tmp_path, make_redis):
    """Mutations: cached tokens are priced as input too; no stream is asked for its usage; a denial takes its part."""
    ann, team, poor = Customer("cust-ann", "prepaid"), Customer("cust-team", "team"), Customer("cust-poor", "prepaid")
    app, redis = api(("POST", CHAT, chat)), make_redis()
    async with shop(tmp_path, EXAMPLES / "ai-tokens.yaml", [ann, team, poor], app, redis.url) as running:
        await running.grant(ann, "1", "usd")
        await running.grant(team, "1", "usd")

        plain = await running.ask(ann, CHAT, prompt("gpt-4.1-mini"))
        assert (plain.status, plain.json()["usage"]["total_tokens"]) == (200, 120)
        (record,) = await running.records(1)
        mini = {"requests": 1, "mini_input": 60, "mini_cached": 40, "mini_output": 20}
        assert usage(record) == mini
        assert record["data"]["quality"] == "provider_reported"
        assert record["data"]["dims"]["model"] == "gpt-4.1-mini-2025-04-14"
        spent = Decimal("0.000060")  # (60 x 0.40 + 40 x 0.10 + 20 x 1.60) / 1,000,000
        assert await _settled(running, ann) == 1 - spent

        streamed = await running.ask(ann, CHAT, prompt("gpt-4.1-mini", stream=True))
        assert streamed.status == 200
        assert b"usage" not in streamed.body
        assert streamed.body.endswith(b"data: [DONE]\n\n")
        assert usage((await running.records(2))[1]) == mini
        assert await _settled(running, ann) == 1 - 2 * spent

        await running.ask(ann, CHAT, prompt("gpt-4.1"))
        assert usage((await running.records(3))[2]) == {
            "requests": 1, "large_input": 60, "large_cached": 40, "large_output": 20,
        }  # fmt: skip
        spent = 2 * spent + Decimal("0.000300")  # (60 x 2.00 + 40 x 0.50 + 20 x 8.00) / 1,000,000
        assert await _settled(running, ann) == 1 - spent

        gated = await running.ask(ann, CHAT, prompt("o3-mini"))
        assert (gated.status, gated.json()["type"]) == (403, "urn:problem:sidecar:feature-missing")
        assert gated.json()["plans"] == ["team"]
        assert (await running.ask(team, CHAT, prompt("o3-mini"))).status == 200
        assert await _settled(running, team) == 1 - Decimal("0.000240")  # the same, four fifths of the price

        empty = await running.ask(poor, CHAT, prompt("gpt-4.1-mini"))
        assert empty.status == 402
        assert empty.json()["type"] == "urn:problem:sidecar:balance-exhausted"
        assert empty.json()["link"] == "https://example.com/top-up"
        (denial,) = await running.records(1, "denial")
        assert denial["data"]["decision"]["violated"] == "credit"
        assert await _settled(running, poor) == 0


async def test_a_retry_and_a_failure_of_an_ai_request_cost_nothing(tmp_path, make_redis):
    """new-api #5235, #7241. Mutations: a failed first attempt stays the first; a retry is charged, if not billed;
    bodies are not compared.
    """
    ann, healthy = Customer("cust-ann", "prepaid"), asyncio.Event()
    healthy.set()

    async def sometimes(request):
        return await chat(request) if healthy.is_set() else web.Response(status=500)

    async with shop(
        tmp_path, EXAMPLES / "ai-tokens.yaml", [ann], api(("POST", CHAT, sometimes)), make_redis().url
    ) as running:
        await running.grant(ann, "1", "usd")
        one, two = ({"Idempotency-Key": str(uuid.UUID(int=number))} for number in (1, 2))
        for _ in range(3):
            assert (await running.ask(ann, CHAT, prompt("gpt-4.1-mini"), headers=one)).status == 200
            await running.records(len(running.written()))
        assert bill(await running.records(3)) == {(True, "plan:prepaid"): 1, (False, "retry"): 2}
        assert await _settled(running, ann) == 1 - Decimal("0.000060")

        healthy.clear()
        assert (await running.ask(ann, CHAT, prompt("gpt-4.1-mini"), headers=two)).status == 500
        await running.records(4)
        assert await _settled(running, ann) == 1 - Decimal("0.000060")
        healthy.set()
        assert (await running.ask(ann, CHAT, prompt("gpt-4.1-mini"), headers=two)).status == 200
        assert bill(await running.records(5))[True, "plan:prepaid"] == 2
        assert await _settled(running, ann) == 1 - Decimal("0.000120")

        another = prompt("gpt-4.1-mini", temperature=1)  # one key for all that is ever asked pays for all of it
        assert (await running.ask(ann, CHAT, another, headers=two)).status == 200
        assert bill(await running.records(6))[True, "plan:prepaid"] == 3
        assert await _settled(running, ann) == 1 - Decimal("0.000180")


async def test_an_alert_tells_that_eighty_percent_of_the_credit_are_gone_and_then_all(tmp_path, make_redis):
    ann = Customer("cust-ann", "prepaid")
    async with shop(
        tmp_path, EXAMPLES / "ai-tokens.yaml", [ann], api(("POST", CHAT, chat)), make_redis().url
    ) as running:
        await running.grant(ann, "0.06", "usd")
        assert (await running.ask(ann, CHAT, prompt("gpt-4.1-mini", max_tokens=30_000))).status == 200
        (told,) = await running.records(1, "alert")  # while the answer is on its way it is held, and so it is gone
        assert told["data"]["percent"] == 80
        assert told["data"]["amount"] == 60_000_000
        assert told["data"]["unit"] == "usd"
        assert told["data"]["link"] == "https://example.com/top-up"
        assert (await running.ask(ann, CHAT, prompt("gpt-4.1-mini"))).status == 200
        await running.records(2)
        await running.records(1, "alert")


async def _settled(running, customer, unit="usd"):
    """What is left once nothing is held any more: the settle follows the answer by a moment."""
    while (wallet := await running.wallet(customer, unit))["holds"]:
        await asyncio.sleep(0.01)
    return Decimal(wallet["balance"])


# --- A JSON-RPC provider: calls by method, an allowance, a commit ----------------------------------------------------


async def rpc(request):
    calls = await request.json()
    answers = [{"jsonrpc": "2.0", "id": call["id"], "result": "0x0"} for call in calls if "id" in call]
    return web.json_response(answers)


def call(*methods):
    return [{"jsonrpc": "2.0", "id": number, "method": method} for number, method in enumerate(methods)]


async def test_json_rpc_calls_are_sold_by_method_past_what_is_included_and_drawn_from_a_commit(tmp_path, make_redis):
    """Mutations: a batch counts once; the included calls are charged; archive methods count as plain calls too."""
    ann, over = Customer("cust-ann", "growth"), Customer("cust-over", "growth")
    app, redis = api(("POST", "/{path:.*}", rpc)), make_redis()
    async with shop(tmp_path, EXAMPLES / "json-rpc.yaml", [ann, over], app, redis.url) as running:
        await running.grant(ann, "5000", "usd")
        batch = call("eth_blockNumber", "eth_call", "eth_call", "eth_getLogs", "trace_block")
        assert (await running.ask(ann, "/", batch)).status == 200
        (record,) = await running.records(1)
        assert usage(record) == {
            "requests": 1, "calls": 3, "archive_calls": 2, "compute_units": 10 + 2 * 26 + 75 + 300,
        }  # fmt: skip
        archive = Decimal("0.000080")  # the other calls are included
        assert await _settled(running, ann) == 5000 - archive

        (included,) = _counters(redis, ann, "commit.calls")
        assert redis.cli.get(included) == b"3"
        redis.cli.set(included, 49_999_995, keepttl=True)
        assert (await running.ask(ann, "/", call(*["eth_call"] * 12))).status == 200
        assert await _settled(running, ann) == 5000 - archive - 7 * Decimal("0.00001")
        redis.cli.set(included, 149_999_999, keepttl=True)
        assert (await running.ask(ann, "/", call(*["eth_call"] * 3))).status == 200
        second_tier = Decimal("0.00001") + 2 * Decimal("0.000008")
        assert await _settled(running, ann) == 5000 - archive - 7 * Decimal("0.00001") - second_tier

        assert (await running.ask(over, "/", call("debug_traceBlock"))).status == 200, "overage is owed, not refused"
        assert await _settled(running, over) == -Decimal("0.00004")
        assert running.written("denial") == []


# hostile F2: Go's decoder, which geth reads with, runs each of these. Fails if one is served for nothing.
async def test_a_json_rpc_body_whose_methods_cannot_be_read_is_refused_and_costs_nothing(tmp_path, make_redis):
    ann = Customer("cust-ann", "growth")
    one = b'{"jsonrpc":"2.0","method":"debug_traceTransaction","params":["0x1"],"id":1%b}'
    unread = {
        b" " * (1 << 20) + b"[]": 413,
        b"[" + b",".join([one % b""] * 1_001) + b"]": 413,
        one % b"" + b" x": 400,
        one % b"" + b"\x00": 400,
        one % b',"x":"\xff"': 400,
        one % (b',"x":' + b"9" * 5_000): 400,
        one % (b',"x":' + b"[" * 1_100 + b"]" * 1_100): 400,
        one % b',"method":"eth_chainId"': 400,
        one % b',"Method":"eth_chainId"': 400,
    }
    async with shop(
        tmp_path, EXAMPLES / "json-rpc.yaml", [ann], api(("POST", "/{path:.*}", _served)), make_redis().url
    ) as running:
        await running.grant(ann, "1", "usd")
        assert [(await running.ask(ann, "/", body)).status for body in unread] == [*unread.values()]
        assert (await running.ask(ann, "/", one % b"")).status == 200
        (record,) = await running.records(1)
        assert (usage(record)["archive_calls"], record["data"]["quality"]) == (1, "exact")


def _counters(redis, customer, limit):
    return [key.decode() for key in redis.cli.scan_iter(f"sc:{{{customer.name}}}:[a-z]={limit}:*")]


# --- A data API: rows and bytes --------------------------------------------------------------------------------------


async def query(request):
    """As many rows as the query says; without `rows` the answer does not say how many it has."""
    rows = request.query.get("rows")
    return web.json_response({"meta": {"rows": int(rows)} if rows else {}, "data": []})


async def export(_):
    return web.Response(body=b"x" * 12_345)


async def test_a_data_api_sells_rows_and_bytes(tmp_path):
    """Without Redis, as it may. Mutations: a default is not marked; the estimate of rows stays."""
    ann, pro, tester = Customer("cust-ann", "free"), Customer("cust-pro", "pro"), Customer("cust-t", "pro", test=True)
    app = api(("GET", "/v1/query/{name}", query), ("GET", "/v1/exports/{name}", export), ("GET", "/healthz", _served))
    async with shop(tmp_path, EXAMPLES / "data-api.yaml", [ann, pro, tester], app) as running:
        first = await running.ask(ann, "/v1/query/people?rows=128")
        (record,) = await running.records(1)
        assert usage(record) == {"requests": 1, "rows": 128, "egress_bytes": len(first.body)}
        assert record["data"]["quality"] == "exact"

        await running.ask(pro, "/v1/query/people")
        (_, record) = await running.records(2)
        assert (record["data"]["usage"]["rows"], record["data"]["quality"]) == (0, "partial")

        assert (await running.ask(pro, "/v1/exports/all")).status == 200
        assert usage((await running.records(3))[2]) == {"requests": 1, "egress_bytes": 12_345}
        gated = await running.ask(ann, "/v1/exports/all")
        assert (gated.status, gated.json()["plans"]) == (403, ["pro"])

        await running.ask(tester, "/v1/query/people?rows=7")
        record = (await running.records(4))[3]
        assert (record["data"]["billable"], record["data"]["billable_reason"]) == (False, "test_key")
        async with running.node.session.get(running.node.where + "/healthz") as answer:
            assert answer.status == 200
        (health,) = await running.records(1, "unattributed")
        assert not health["data"]["billable"]

        assert (await running.ask(ann, "/v1/query/people?rows=99800")).status == 200
        await running.records(5)
        (told,) = await running.records(1, "alert")  # at the end of the one, before anyone asks again
        assert (told["data"]["limit"], told["data"]["percent"], told["data"]["used"]) == ("rows", 80, 99_928)
        refused = await running.ask(ann, "/v1/query/people?rows=1")  # 72 rows are left, and 100 are held for a request
        assert refused.status == 429
        assert refused.json()["type"].endswith("#quota-exceeded")
        assert refused.json()["link"] == "https://example.com/plans"
        (denial,) = await running.records(1, "denial")
        assert denial["data"]["decision"]["violated"] == "rows"


# --- A payments API: seats and calls ---------------------------------------------------------------------------------


async def pay(request):
    return web.Response(status=500 if request.query.get("broken") else 201)


async def test_a_payments_api_sells_seats_and_calls_and_a_payment_is_paid_for_once(tmp_path, make_redis):
    """On two workers. Mutations: seats are left out; each worker has first attempts, or alerts, of its own."""
    shopkeeper, acme = Customer("cust-shop", "business"), Customer("cust-9", "business")
    starter, us = Customer("cust-new", "starter"), Customer("cust-us", "business")
    app, redis = api(("POST", "/v1/payments", pay), ("GET", "/{path:.*}", _served)), make_redis()
    two_workers = {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}"}
    customers = [shopkeeper, acme, starter, us]
    async with shop(tmp_path, EXAMPLES / "payments.yaml", customers, app, redis.url, **two_workers) as running:
        await running.node.until(lambda status: all(child["ready"] for child in status["children"]))
        again = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
        answers = await asyncio.gather(*(running.ask(shopkeeper, "/v1/payments", {}, headers=again) for _ in range(20)))
        assert {answer.status for answer in answers} == {201}
        records = await running.records(20)
        assert bill(records) == {(True, "plan:business"): 1, (False, "retry"): 19}
        assert len({record["source"] for record in records}) == 2, "one of the workers had nothing to do"
        await until(lambda: _used(redis, shopkeeper, "monthly") == 1, "one call counted")
        assert _used(redis, shopkeeper, "payments-daily") == 1

        await running.ask(acme, "/status")
        limits = {each["id"]: each["limit"] for each in (await running.records(21))[20]["data"]["decision"]["limits"]}
        assert limits["monthly"] == 120_000, "10,000 for each of twelve seats"
        gated = await running.ask(starter, "/v1/payments", {})
        assert (gated.status, gated.json()["plans"]) == (403, ["business"])
        await running.ask(us, "/v1/payments", {})
        assert bill((await running.records(22))[21:]) == {(False, "internal"): 1}
        await until(lambda: _used(redis, us, "monthly") == 0, "nothing counted of an internal call")

        (daily,) = _counters(redis, shopkeeper, "payments-daily")
        redis.cli.set(daily, 1_999, keepttl=True)
        passing, warned = [await running.ask(shopkeeper, "/v1/payments", {}) for _ in range(2)]
        assert (passing.status, "sidecar-warning" in passing.headers) == (201, False)
        assert warned.status == 201, "soft lets pass"
        assert "payments-daily" in warned.headers["sidecar-warning"]
        assert "https://example.com/limits" in warned.headers["sidecar-warning"]

        (monthly,) = _counters(redis, shopkeeper, "monthly")
        redis.cli.set(monthly, 7_990, keepttl=True)
        await asyncio.gather(*(running.ask(shopkeeper, f"/status/{number}") for number in range(40)))
        redis.cli.set(monthly, 9_990, keepttl=True)
        await asyncio.gather(*(running.ask(shopkeeper, f"/status/{number}") for number in range(40)))
        await running.records(24 + 80)
        told = sorted(alert["data"]["percent"] for alert in await running.records(2, "alert"))
        assert told == [80, 100], "each once, over both workers, whose journals are shipped in any order"
        assert running.written("denial") == []


def _used(redis, customer, limit):
    return sum(int(redis.cli.get(key) or 0) for key in _counters(redis, customer, limit))


# --- A free tier -----------------------------------------------------------------------------------------------------


async def test_a_free_tier_of_ten_thousand_calls_turns_into_429_and_a_link(tmp_path, make_redis):
    """Kong docs #6586 (refused calls counted). Mutation: a denial is counted."""
    ann, bob = Customer("cust-ann", "free"), Customer("cust-bob", "free")
    app, redis = api(("GET", "/{path:.*}", _served)), make_redis()
    async with shop(tmp_path, POLICIES / "free-tier.yaml", [ann, bob], app, redis.url) as running:
        assert (await running.ask(ann, "/hello")).status == 200
        (monthly,) = _counters(redis, ann, "monthly")
        redis.cli.set(monthly, 9_998, keepttl=True)
        answers = [await running.ask(ann, "/hello") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        problem = answers[2].json()
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert (problem["link"], problem["violated-policies"]) == ("https://example.com/plans", ["monthly"])
        assert int(answers[2].headers["retry-after"]) > 0
        assert redis.cli.get(monthly) == b"10000"
        assert (await running.ask(bob, "/hello")).status == 200
        records = await running.records(4)
        assert bill(records) == {(True, "plan:free"): 4}
        denials = await running.records(2, "denial")
        assert {denial["data"]["decision"]["violated"] for denial in denials} == {"monthly"}
