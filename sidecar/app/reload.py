"""The two phases of a reload in one worker: build all that changes, then swap it in whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, NamedTuple

from sidecar.app.upstreams import Secrets
from sidecar.app.worker_options import head_limits
from sidecar.core.http.request import HeadLimits
from sidecar.core.identity import Identity
from sidecar.core.policy import Policy
from sidecar.loading.certificates import Pem, server_context
from sidecar.loading.snapshot import policy_of
from sidecar.loading.snapshot import staged as staged_path
from sidecar.ports import Upstream
from sidecar.supervisor.link import Json

if TYPE_CHECKING:
    from sidecar.app.worker import Worker

log = logging.getLogger("sidecar.worker")


class Prepared(NamedTuple):
    """All that a reload swaps in: built before anything is changed. `upstreams` by the id of their route."""

    policy: Policy
    keys: dict[bytes, Identity]
    upstreams: dict[str, Upstream]
    limits: HeadLimits
    renewed: Renewed | None


class Renewed(NamedTuple):
    """All that is made of certificates and secrets, where one of them has changed."""

    pem: Pem
    server: ssl.SSLContext | None
    upstreams: dict[str, Secrets]


class Reload:
    """The reloads of `worker`, which began with `pem`: certificates and secrets. It is `link.Reloads`."""

    def __init__(self, worker: Worker, pem: Pem) -> None:
        self._worker = worker
        self._pem = pem
        self._lock = asyncio.Lock()
        self._prepared: Prepared | None = None

    async def prepare(self, staged: Json) -> str:
        """Build all that the staged policy, keys and certificates need. PolicyError: a file is wrong.

        They are read in a thread, which may take seconds of many plans and keys, and by one reload at a time, so that
        what was read last stays.
        """
        async with self._lock:
            self.discard()
            self._prepared = await self._build(staged.get("pem"), staged=True)
            return self._prepared.policy.version

    async def commit(self) -> str:
        """Swap in what was prepared, or else what is current: whole, or (PolicyError, OSError) not at all."""
        async with self._lock:
            prepared = self._prepared or await self._build(self._worker.link.start.get("pem"), staged=False)
            self.discard()
            self._worker.keys.swap_in(prepared.keys)
            if prepared.policy.hashes != self._worker.context.policies.policy.hashes:
                self._worker.state_policy(prepared.policy)
            self._worker.context.policies.swap_in(prepared.policy, prepared.upstreams)
            self._worker.listener.limits = prepared.limits
            if prepared.renewed is not None:
                self._renew(prepared.renewed)
            self._worker.counters.recall()
            if self._worker.embedded is not None:
                self._worker.embedded.policy_changed(prepared.policy)
            return prepared.policy.version

    def discard(self) -> None:
        """Forget what was prepared."""
        self._prepared = None

    async def _build(self, pem: Pem | None, *, staged: bool) -> Prepared:
        policy, keys = await asyncio.to_thread(self._read, staged=staged)
        upstreams = {route.id: self._worker.upstreams.of(route) for route in policy.routes}
        renewed = None
        if pem is not None and pem != self._pem:
            tls = self._worker.settings.tls
            server = server_context(tls, pem) if tls is not None else None
            renewed = Renewed(pem, server, self._worker.upstreams.secrets(pem))
        return Prepared(policy, keys, upstreams, head_limits(self._worker.settings, policy), renewed)

    def _renew(self, renewed: Renewed) -> None:
        """Present and trust the new certificates, and send the new secrets; open connections stay as they are."""
        if self._worker.tls is not None and renewed.server is not None:
            self._worker.tls.swap(renewed.server)
        self._worker.upstreams.swap_in(renewed.upstreams)
        self._worker.keys.reconnect()
        changed = sorted(path for path, text in renewed.pem.items() if self._pem.get(path) != text)
        self._pem = renewed.pem
        log.info("certificates and secrets renewed: %s", ", ".join(changed))

    def _read(self, *, staged: bool) -> tuple[Policy, dict[bytes, Identity]]:
        policies, keys = self._worker.settings.policies, self._worker.settings.keys.file
        if staged:
            policies, keys = staged_path(policies), keys and staged_path(keys)
        return policy_of(policies), self._worker.keys.read(keys)
