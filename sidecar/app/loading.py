"""Policies and keys as a node reads them: both together, every fault of both at once. For `run`, reload and `check`."""

from __future__ import annotations

from typing import NamedTuple

from sidecar.config import compile as compiling
from sidecar.config.compile import Loaded
from sidecar.config.settings import Settings
from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import KeyRecord
from sidecar.core.policy import Policy
from sidecar.core.usage import Draft
from sidecar.edge.file_keys import KeyFile


class Node(NamedTuple):
    """What a node is told by its documents; the keys are those of a file."""

    loaded: Loaded
    keys: list[KeyRecord]

    @property
    def policy(self) -> Policy:
        """The compiled policy."""
        return self.loaded.policy


def load(settings: Settings) -> Draft:
    """Validate the policies and keys that `settings` name; what the policies say. PolicyError: all that is wrong."""
    return load_all(settings).loaded.draft


def load_all(settings: Settings) -> Node:
    """The compiled policy, and the keys where they are in a file. PolicyError: all that is wrong with either."""
    faults: list[Fault] = []
    loaded, keys = None, list[KeyRecord]()
    try:
        loaded = _loaded(settings)
    except PolicyError as error:
        faults += error.faults
    try:
        keys = KeyFile(settings.keys.file).records() if settings.keys.file is not None else []
    except PolicyError as error:
        faults += error.faults
    if loaded is None or faults:
        raise PolicyError(faults)
    return Node(loaded, keys)


def _loaded(settings: Settings) -> Loaded:
    wallets = settings.redis is not None
    return compiling.load(settings.policies, set(settings.upstreams), region=settings.region, wallets=wallets)


def planless(policy: Policy, keys: list[KeyRecord]) -> list[KeyRecord]:
    """Keys of a plan that no policy defines: whoever presents one is refused."""
    return [key for key in keys if key.plan not in policy.plans]


def mistermed(loaded: Loaded, keys: list[KeyRecord]) -> list[tuple[KeyRecord, str]]:
    """Keys of a customer that has terms of its own, on top of another plan than the key's: they do not apply to it."""
    own = {customer: plan for customer, plan in loaded.offers if customer}
    return [(key, own[key.customer]) for key in keys if own.get(key.customer, key.plan) != key.plan]
