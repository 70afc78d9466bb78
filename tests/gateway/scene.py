"""An exchange on paper: one client, one upstream, and everything between them as the tests let it happen."""

import orjson

from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.policy import Limit
from sidecar.gateway import serve
from sidecar.testing import PaperClient
from tests.stage import Setting

SLOTS = Limit("slots", "concurrency", 1, period_us=60_000_000)


class Scene(Setting):
    def ask(self, *fields, key="ann", method="GET", target=b"/a", minor=1):
        pairs = [(b"Host", b"h"), *(tuple(field.encode().split(b": ", 1)) for field in fields)]
        if key:
            pairs.append((b"X-Api-Key", key.encode()))
        self.client = PaperClient()
        self.exchange = serve(self.context, read_request((method, target, minor), pairs, HeadLimits()), self.client)
        return self.exchange

    @property
    def call(self):
        return self.upstream.calls[-1]

    @property
    def members(self):
        return orjson.loads(self.client.content)

    @property
    def problem(self):
        return self.members["type"].rpartition(":")[2]

    @property
    def record(self):
        [entry] = self.journal.of("records")
        return orjson.loads(entry.body)["data"]

    def at_rest(self):
        """Nothing is open: every exchange was counted in and out, and no slot is held."""
        return self.context.open.number == 0 and self.context.open.idle.is_set() and self.counters.used("slots") == 0
