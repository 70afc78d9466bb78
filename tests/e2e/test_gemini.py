"""Google's own client of Gemini through a whole node before the vendor's API, as docs/vendor-libraries.md shows it.

TLS on both sides, the name of the vendor in Host and SNI, the vendor's key from the environment. The client knows the
key of its customer alone. A refusal is its own exception with our reason, at once.
"""

import asyncio
import json
import re
import ssl
import time
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
import yaml
from google import genai
from google.genai import errors, types

from tests.e2e.shop import Customer, shop
from tests.servers import certificates
from tests.servers.ai import TEXT, Vendors

pytestmark = [
    pytest.mark.redis,
    # the client's own, with the aiohttp of today
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

VENDOR = "gemini.vendor.example"
PAGE = (Path(__file__).parents[2] / "docs/vendor-libraries.md").read_text().partition("## Gemini")[2]
SETTINGS, ROUTES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
[PROGRAM] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
POLICY = f"""\
meters:
  input_tokens: {{ usage: input_uncached }}
  cached_tokens: {{ usage: cache_read }}
  output_tokens: {{ usage: output }}
  reasoning_tokens: {{ usage: reasoning }}
{ROUTES}
    estimate: {{ output: 500 }}
plans:
  open: {{ limits: [] }}
  slow: {{ limits: [{{ id: burst, meter: requests, rate: 1/min, burst: 1 }}] }}
  monthly: {{ limits: [{{ id: monthly, meter: requests, quota: 1/month }}] }}
  prepaid:
    currency: usd
    prices:
      input_tokens: {{ price: "2.50", per: 1000000 }}
      output_tokens: {{ price: "10", per: 1000000 }}
      reasoning_tokens: {{ price: "10", per: 1000000 }}
    limits: [{{ id: credit, balance: usd, link: "https://example.com/top-up" }}]
"""
USAGE = {"input_tokens": 200, "cached_tokens": 64, "output_tokens": 30, "reasoning_tokens": 70}
PRICE = Decimal("0.0015")  # 200 x 2.50 + 100 x 10 a million; an estimate of 500 x 10 a million is held meanwhile
CUSTOMERS = {plan: Customer(f"c-{plan}", plan) for plan in ("open", "slow", "monthly", "prepaid")}


class Stand:
    """A running node, the vendor behind it, and clients of it."""

    def __init__(self, running, vendors, authority):
        self.shop, self.vendors, self.authority = running, vendors, authority
        self.trust = ssl.create_default_context(cafile=authority)

    def client(self, plan, **options):
        """A client of the customer on this plan; for asynchronous calls httpx2 has `verify` and aiohttp `ssl`."""
        own = {
            "base_url": self.shop.node.where,
            "client_args": {"verify": self.trust},
            "async_client_args": {"verify": self.trust, "ssl": self.trust},
        }
        return genai.Client(api_key=CUSTOMERS[plan].key, http_options=types.HttpOptions(**own | options))

    async def run_program(self, plan, monkeypatch):
        """The output of the program on the page, run for a customer on this plan."""
        monkeypatch.setenv("SSL_CERT_FILE", str(self.authority))
        program = PROGRAM.replace("https://sidecar.example", self.shop.node.where).replace("msk_…", CUSTOMERS[plan].key)
        output = []
        names = {"print": lambda *values, end="\n": output.append(" ".join(map(str, values)) + end)}
        await asyncio.to_thread(exec, program + "client.close()\n", names)
        return "".join(output)


@pytest.fixture
async def stand(tmp_path, redis_clean, monkeypatch):
    """A node before an API that has a name and an authority of its own."""
    monkeypatch.setenv("GEMINI_API_KEY", "vendor-secret")
    ours, theirs = certificates.make(tmp_path / "ours"), certificates.make(tmp_path / "theirs", VENDOR)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(theirs.certificate, theirs.key)
    vendors = Vendors()
    settings = {
        "UPSTREAMS__DEFAULT__HOST": VENDOR,
        "UPSTREAMS__DEFAULT__HEADERS": json.dumps(yaml.safe_load(SETTINGS)["upstreams"]["default"]["headers"]),
        "UPSTREAMS__DEFAULT__TLS__CA": str(theirs.authority),
        "TLS__CERT": str(ours.certificate),
        "TLS__KEY": str(ours.key),
    }
    customers = list(CUSTOMERS.values())
    async with shop(tmp_path, POLICY, customers, vendors.application(), redis_clean.url, tls, **settings) as running:
        yield Stand(running, vendors, ours.authority)


ASKED = {"model": "gemini-2.5-pro", "contents": "Salut"}


def plain(stand, plan, **options):
    with stand.client(plan, **options) as client:
        answer = client.models.generate_content(**ASKED)
    assert (answer.text, answer.usage_metadata.total_token_count) == ("".join(TEXT), 364)


def streamed(stand, plan, **options):
    with stand.client(plan, **options) as client:
        chunks = list(client.models.generate_content_stream(**ASKED))
    assert ([chunk.text for chunk in chunks], chunks[-1].usage_metadata.total_token_count) == (list(TEXT), 364)


async def plain_async(stand, plan, **options):
    async with stand.client(plan, **options).aio as client:
        assert (await client.models.generate_content(**ASKED)).text == "".join(TEXT)


async def streamed_async(stand, plan, **options):
    async with stand.client(plan, **options).aio as client:
        chunks = [chunk.text async for chunk in await client.models.generate_content_stream(**ASKED)]
    assert chunks == list(TEXT)


CALLS = [plain, streamed, plain_async, streamed_async]


async def run(call, *given, **options):
    if asyncio.iscoroutinefunction(call):
        await call(*given, **options)
    else:
        await asyncio.to_thread(call, *given, **options)


# Fails if the customer's key goes up beside the vendor's, or the vendor is asked by an address that it does not know.
async def test_the_client_works_and_the_records_hold_its_tokens(stand, monkeypatch):
    over_httpx2 = {"async_client_args": {"transport": httpx2.AsyncHTTPTransport(verify=stand.trust)}}
    calls = [*((call, {}) for call in CALLS), (streamed, {"api_version": "v1beta"}), (streamed_async, over_httpx2)]
    for call, options in calls:
        await run(call, stand, "open", **options)
    for record in await stand.shop.records(len(calls)):
        data = record["data"]
        tokens = {name: units for name, units in data["usage"].items() if name != "requests" and units}
        assert (tokens, data["quality"], data["billable"]) == (USAGE, "provider_reported", True)
        assert data["dims"]["model"] == "gemini-2.5-pro-002"
    assert [path.split("/")[1] for path, _, _ in stand.vendors.seen] == ["v1"] * 4 + ["v1beta", "v1"]
    for _, _, fields in stand.vendors.seen:
        assert (fields["host"], fields["x-goog-api-key"]) == (VENDOR, "vendor-secret")
        assert CUSTOMERS["open"].key not in str(fields)
    assert await stand.run_program("open", monkeypatch) == "".join(TEXT)


async def refuse(stand, call, plan, **options):
    """The exception of a call that the plan does not allow: it is raised within seconds."""
    began = time.monotonic()
    with pytest.raises(errors.ClientError) as refused:
        await run(call, stand, plan, **options)
    assert time.monotonic() - began < 15
    return refused.value


async def use_up(stand, plan):
    """Make the one call that the plan, or its wallet, has room for."""
    if plan == "prepaid":
        await stand.shop.grant(CUSTOMERS[plan], "0.006", "usd")
    await run(plain, stand, plan)


REFUSALS = [
    ("slow", 429, "RESOURCE_EXHAUSTED", "limit burst of 1 requests is used up for now"),
    ("monthly", 429, "RESOURCE_EXHAUSTED", "limit monthly of 1 requests is used up for now"),
    (
        *("prepaid", 402, "FAILED_PRECONDITION"),
        "the balance credit is used up: top it up to go on; see https://example.com/top-up",
    ),
]


# Fails if the vendor's member `error` is left out: `message` is then None.
@pytest.mark.parametrize(("plan", "status", "name", "message"), REFUSALS)
async def test_a_refusal_is_the_clients_own_error_with_the_reason(stand, plan, status, name, message, monkeypatch):
    await use_up(stand, plan)
    [record] = await stand.shop.records(1)
    for call in CALLS:
        error = await refuse(stand, call, plan)
        assert (error.code, error.status, error.message) == (status, status, message)
        assert error.details["error"]["status"] == name
        assert message in str(error)
    assert await stand.run_program(plan, monkeypatch) == f"{status} {message}\n"
    denials = await stand.shop.records(len(CALLS) + 1, "denial")
    assert {denial["data"]["status"] for denial in denials} == {status}
    assert (stand.shop.written(), len(stand.vendors.seen)) == ([record], 1)
    if plan == "prepaid":
        balance = (await stand.shop.wallet(CUSTOMERS[plan], "usd"))["balance"]
        assert Decimal(balance) == Decimal("0.006") - PRICE


# `retry_options` has waits of its own, of no length here. Fails if 402 is answered as 429.
@pytest.mark.parametrize(("plan", "attempts"), [("monthly", 3), ("prepaid", 1)])
async def test_retries_that_were_asked_for_do_not_wait_for_the_limit(stand, plan, attempts):
    await use_up(stand, plan)
    requests = []
    seen = {"verify": stand.trust, "event_hooks": {"request": [requests.append]}}
    retries = types.HttpRetryOptions(attempts=3, initial_delay=0.01, jitter=0.01)
    await refuse(stand, plain, plan, client_args=seen, retry_options=retries)
    assert (len(requests), len(stand.vendors.seen)) == (attempts, 1)
