"""Policies and keys as a node reads them: both together, every fault of both at once. For `run`, reload and `check`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from sidecar.config import compile as compiling
from sidecar.config.compile import Loaded
from sidecar.config.settings import Settings
from sidecar.config.wallet_units import changed_faults
from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import KeyRecord
from sidecar.core.policy import Policy
from sidecar.core.usage import Aggregate, PolicySource
from sidecar.edge.keys.file_keys import KeyFile
from sidecar.loading.header_secrets import read_secrets
from sidecar.loading.plan_labels import label_faults

NO_SCALES: Final[Mapping[str, int]] = MappingProxyType({})


class Node(NamedTuple):
    """The validated documents of a node: policies, the keys of a file, and `pem`: certificates and header secrets."""

    loaded: Loaded
    keys: list[KeyRecord]
    pem: dict[str, str]

    @property
    def policy(self) -> Policy:
        """The compiled policy."""
        return self.loaded.policy


def load(settings: Settings, applied: Mapping[str, int] = NO_SCALES) -> PolicySource:
    """Validate the policies and keys that `settings` name; returns the policies. PolicyError: all faults.

    `applied`: the digits, by unit, of the balances of the policy that runs; one with other digits is refused. So is a
    plan label that this node has applied with other content.
    """
    loaded = load_all(settings).loaded
    balances = {limit.balance: at for offer in loaded.offers.values() for at, limit in offer.limits if limit.balance}
    if faults := list(changed_faults(loaded.units, balances, applied)):
        raise PolicyError(faults)
    return loaded.source


def load_all(settings: Settings) -> Node:
    """The compiled policy, the keys if they are in a file, the certificates. PolicyError: all faults."""
    faults: list[Fault] = []
    loaded, keys, pem = None, list[KeyRecord](), dict[str, str]()
    try:
        loaded = load_policies(settings)
    except PolicyError as error:
        faults += error.faults
    try:
        keys = KeyFile(settings.keys.file).records() if settings.keys.file is not None else []
    except PolicyError as error:
        faults += error.faults
    try:
        pem = read_secrets(settings)
    except PolicyError as error:
        faults += error.faults
    if loaded is not None:
        try:
            faults += label_faults(loaded, settings.journal.dir)
        except PolicyError as error:
            faults += error.faults
    if loaded is None or faults:
        raise PolicyError(settings.ascribe(faults))
    return Node(loaded, keys, pem)


def load_policies(settings: Settings) -> Loaded:
    """Only the policies. PolicyError: all faults."""
    try:
        return compiling.load(settings.policies, set(settings.upstreams), region=settings.region)
    except PolicyError as error:
        raise PolicyError(settings.ascribe(error.faults)) from None


def non_additive_meters(settings: Settings) -> dict[str, Aggregate]:
    """The meters whose quantity of a period is not the sum of its records. PolicyError: as in `load_policies`."""
    rules = load_policies(settings).rules
    return {meter: rule.aggregate for meter, rule in rules.items() if not rule.aggregate.is_additive}


def keys_with_unknown_plan(policy: Policy, keys: list[KeyRecord]) -> list[KeyRecord]:
    """Keys of a plan that no policy defines: requests with them are refused."""
    return [key for key in keys if key.plan not in policy.plans]


def keys_outside_customer_terms(loaded: Loaded, keys: list[KeyRecord]) -> list[tuple[KeyRecord, str]]:
    """Keys of a customer that has terms of its own, on top of another plan than the key's: they do not apply to it."""
    own = {customer: plan for customer, plan in loaded.offers if customer}
    return [(key, own[key.customer]) for key in keys if own.get(key.customer, key.plan) != key.plan]
