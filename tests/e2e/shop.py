"""A node that sells: a policy as it is on disk, keys of several customers, wallets on Redis, and an API behind it.

Customers ask with keys of their own; what is enforced is read from answers and Redis, what is billed from the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson
import redis.asyncio
from aiohttp import web
from jsonschema import Draft202012Validator

from sidecar.core.identity import digest, make_key, stored
from sidecar.core.price.book import EVERY
from sidecar.core.price.decimals import DIGITS, amount_of
from sidecar.core.price.wallet import Grant
from sidecar.core.record import record_schema
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.records.verify import verify
from sidecar.wallets.audit import audit
from sidecar.wallets.text import describe_wallet
from tests.app.node import Node, node
from tests.e2e.stage import served

ROOT = Path(__file__).parents[2]


class Customer(NamedTuple):
    """One key of a customer, on a plan."""

    name: str
    plan: str
    test: bool = False

    @property
    def key(self) -> str:
        return make_key(f"{self.name:*<20}".encode()[:20])

    def entry(self) -> str:
        who = f"customer: {self.name}, subject: app-{self.name}, plan: {self.plan}"
        test = ", test: true" if self.test else ""
        return f"  - {{ id: k-{self.name}, hash: {stored(digest(self.key.encode()))!r}, {who}{test} }}\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


class Shop:
    """A running node, and what its customers and its operator do with it."""

    def __init__(self, running: Node, session: aiohttp.ClientSession, environment: dict[str, str]) -> None:
        self.node = running
        self._session = session
        self._environment = environment
        self._grants = itertools.count(1)

    async def ask(self, customer: Customer, path: str, body: Any = None, **how: Any) -> Answer:
        """One request; with a `body`, a POST of it as JSON. Header names of the answer are lower case."""
        headers = {"X-Api-Key": customer.key, "Content-Type": "application/json", **how.pop("headers", {})}
        method = how.pop("method", "GET" if body is None else "POST")
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        data = io.BytesIO(data) if data else data  # aiohttp warns of large bytes
        async with self._session.request(method, self.node.where + path, data=data, headers=headers) as answer:
            fields = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, fields, await answer.read())

    async def records(self, number: int, kind: str = "usage", seconds: float = 15) -> list[dict[str, Any]]:
        """The records of a kind, as many as there are to be: waited for, and not one more."""
        deadline = time.monotonic() + seconds
        while len(found := self.written(kind)) < number:
            assert time.monotonic() < deadline, (len(found), number, (self.node.folder / "node.log").read_text())
            await asyncio.sleep(0.02)
        assert len(found) == number, found
        return found

    def written(self, kind: str = "usage") -> list[dict[str, Any]]:
        stem = "records.denials" if kind == "denial" else "records"
        events = [orjson.loads(line) for line in self.node.records(stem)]
        return [event for event in events if event["type"] == f"sidecar.{kind}.v1"]

    def hold_records(self) -> None:
        """Every record meets its schema, and each producer's numbers are whole."""
        validators = {kind: Draft202012Validator(schema) for kind, schema in record_schema()["$defs"].items()}
        for stem in ("records", "records.denials"):
            lines = self.node.records(stem)
            for event in map(orjson.loads, lines):
                kind = event["type"].removeprefix("sidecar.").removesuffix(".v1")
                faults = [error.message for error in validators[kind].iter_errors(event)]
                assert not faults, (event, faults)
            assert (report := verify(lines)).whole, report

    async def sidecar(self, *words: str, fails: bool = False) -> str:
        """Run a command of ours with the node's settings; what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", *words, "-c", str(self.node.folder / "sidecar.yaml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        out, error = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode != 0) == fails, (words, out, error)
        return out.decode()

    async def grant(self, customer: Customer, amount: str, unit: str) -> None:
        """As `sidecar wallet grant` does, without the second that a command takes to start."""
        units = amount_of(amount, DIGITS)
        async with self._wallet(customer, unit) as wallet:
            change = await wallet.grant(Grant(f"g{next(self._grants)}", 0, 0, 0, units, units))
        assert change.done == "made"

    async def wallet(self, customer: Customer, unit: str) -> dict[str, Any]:
        """As `sidecar wallet show --verify --json` does; fails where the ledger does not sum to the balance."""
        async with self._wallet(customer, unit) as wallet:
            book = await wallet.read(EVERY)
        found = audit(book)
        assert found.whole, found
        return describe_wallet(book, DIGITS)

    @contextlib.asynccontextmanager
    async def _wallet(self, customer: Customer, unit: str) -> AsyncIterator[RedisWallet]:
        client = redis.asyncio.Redis.from_url(self._environment["SIDECAR_REDIS__URL"])
        yield RedisWallet(client, customer.name, unit)
        await client.aclose()

    async def check(self) -> dict[str, Any]:
        return orjson.loads(await self.sidecar("check", "--json"))


@contextlib.asynccontextmanager
async def shop(
    folder: Path,
    policy: Path | str,
    customers: list[Customer],
    app: web.Application,
    redis_url: str = "",
    tls: ssl.SSLContext | None = None,
    **settings: str,
) -> AsyncIterator[Shop]:
    """Run a node before `app` until the block ends. `policy`: a document on disk, or the text of one of the test's own.

    A Redis that is well is given two seconds: on a busy machine 50 ms are soon over. `settings` set `SIDECAR_<NAME>`.
    With `tls` the API is served over TLS.
    """
    path = policy
    if isinstance(policy, str):
        path = folder / "policy.yaml"
        path.write_text(policy)
    (folder / "customers.yaml").write_text("keys:\n" + "".join(each.entry() for each in customers))
    async with served(app, **({"ssl_context": tls} if tls else {})) as url:
        own = {
            "SIDECAR_POLICIES": str(path),
            "SIDECAR_KEYS__FILE": str(folder / "customers.yaml"),
            "SIDECAR_UPSTREAMS__DEFAULT__URLS": url,
            **({"SIDECAR_REDIS__URL": redis_url, "SIDECAR_REDIS__TIMEOUT": "2s"} if redis_url else {}),
            **{f"SIDECAR_{name}": value for name, value in settings.items()},
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
        crowd = aiohttp.TCPConnector(limit=0)  # as many connections as there are customers who wait
        async with node(folder, **own) as running, aiohttp.ClientSession(connector=crowd) as session:
            await running.until(_all_accept)
            made = Shop(running, session, clean | own)
            yield made
            made.hold_records()


def api(*routes: tuple[str, str, Callable[[web.Request], Any]]) -> web.Application:
    """An API of handlers by method and path."""
    app = web.Application(client_max_size=1 << 24)
    for method, path, handler in routes:
        app.router.add_route(method, path, handler)
    return app


def _all_accept(status: dict[str, Any]) -> bool:
    """Until then one worker accepts the connections of another that is starting."""
    return all(child["listening"] for child in status["children"] if child["name"].startswith("worker"))
