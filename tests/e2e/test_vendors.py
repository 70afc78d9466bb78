"""A node before an API that wants its own Host, a base path and a key of ours: what it sees of them."""

import os
import signal

import aiohttp

from tests.app.node import KEY
from tests.e2e.clients.origin import application
from tests.e2e.stage import served, sidecar


def settings_for(url, **more):
    return {"UPSTREAMS__DEFAULT__URLS": f"{url}/echo/base", "UPSTREAMS__DEFAULT__HOST": "api.vendor.example", **more}


async def asked(node, session, path="/v1/x?q"):
    """The fields that the API sees of a client that has its key of ours where the vendor's would be."""
    async with session.get(node.where + path, headers={"Authorization": f"Bearer {KEY}"}) as answer:
        assert answer.status == 200, await answer.text()
        seen = await answer.json()
    return seen["fields"] | {"query": seen["query"]}


# The README's second example. Fails if the client's Authorization goes up beside ours.
async def test_one_file_and_one_variable_put_it_before_a_vendor(tmp_path, monkeypatch):
    monkeypatch.setenv("VENDOR_KEY", "sk-vendor")
    headers = '{ Authorization: "Bearer ${VENDOR_KEY}", X-Version: "2023-06-01" }'
    async with (
        served(application()) as url,
        sidecar(
            tmp_path,
            **settings_for(
                url, UPSTREAMS__DEFAULT__HEADERS=headers, UPSTREAMS__DEFAULT__REMOVE_HEADERS="X-Forwarded-For"
            ),
        ) as node,
        aiohttp.ClientSession() as session,
    ):
        fields = await asked(node, session)
        assert fields["host"] == "api.vendor.example"
        assert (fields["authorization"], fields["x-version"]) == ("Bearer sk-vendor", "2023-06-01")
        assert "x-forwarded-for" not in fields
        assert fields["query"] == "q"
        assert "vendor" not in "".join(path.read_text() for path in tmp_path.glob("*.log"))


# Fails if children read files and variables themselves: a worker that starts again would get what is wrong, for ever.
async def test_a_secret_in_a_file_is_replaced_while_it_runs_and_a_wrong_one_is_not_taken(tmp_path):
    key = tmp_path / "vendor-key"
    key.write_text("old\n")
    async with (
        served(application()) as url,
        sidecar(tmp_path, **settings_for(url, UPSTREAMS__DEFAULT__HEADERS=f'{{ X-Key: "${{file:{key}}}" }}')) as node,
        aiohttp.ClientSession() as session,
    ):
        assert (await asked(node, session))["x-key"] == "old"
        _, before = await node.tell("/status")
        key.write_text("new\n")
        await node.until(lambda status: status["policy"]["loaded_us"] != before["policy"]["loaded_us"])
        assert (await asked(node, session))["x-key"] == "new"
        key.write_text("two\nlines\n")
        status = await node.until(lambda status: status["policy"]["failed_reloads"])
        [fault] = status["policy"]["faults"]
        assert fault.startswith(
            "SIDECAR_UPSTREAMS__DEFAULT__HEADERS: upstreams.default.headers.X-Key: is not printable"
        )
        os.kill(status["children"][0]["pid"], signal.SIGKILL)
        status = await node.until(lambda status: status["children"][0]["restarts"] == 1 and status["ready"])
        assert (await asked(node, session))["x-key"] == "new"
