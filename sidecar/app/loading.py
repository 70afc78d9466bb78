"""Policies and keys as a node reads them: both together, every fault of both at once. For `run`, reload and `check`."""

from __future__ import annotations

from sidecar.config.compile import load_policy
from sidecar.config.settings import Settings
from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import KeyRecord
from sidecar.core.policy import Policy
from sidecar.edge.file_keys import KeyFile


def load(settings: Settings) -> str:
    """Validate the policies and the keys that `settings` name; the policy's version. PolicyError: all that is wrong."""
    return load_all(settings)[0].version


def load_all(settings: Settings) -> tuple[Policy, list[KeyRecord]]:
    """The compiled policy, and the keys where they are in a file. PolicyError: all that is wrong with either."""
    faults: list[Fault] = []
    policy, keys = None, list[KeyRecord]()
    try:
        policy = load_policy(settings.policies, set(settings.upstreams), region=settings.region)
    except PolicyError as error:
        faults += error.faults
    try:
        keys = KeyFile(settings.keys.file).records() if settings.keys.file is not None else []
    except PolicyError as error:
        faults += error.faults
    if policy is None or faults:
        raise PolicyError(faults)
    return policy, keys


def planless(policy: Policy, keys: list[KeyRecord]) -> list[KeyRecord]:
    """Keys of a plan that no policy defines: whoever presents one is refused."""
    return [key for key in keys if key.plan not in policy.plans]
