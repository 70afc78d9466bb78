"""The usage of an exchange: meters, the values that they read from requests and answers, and billing."""

from sidecar.core.usage.billing import billing
from sidecar.core.usage.body import MAX_CALLS, Bodies, steps
from sidecar.core.usage.exclusions import Exclusion
from sidecar.core.usage.meters import meter_for
from sidecar.core.usage.policy_source import PolicySource
from sidecar.core.usage.quantities import QUANTITIES
from sidecar.core.usage.rules import (
    MAX_UNITS,
    REQUESTS,
    Count,
    Json,
    JsonTest,
    Lookup,
    Measured,
    MeterRule,
    Usage,
    Value,
    When,
)

__all__ = [
    "MAX_CALLS", "MAX_UNITS", "QUANTITIES", "REQUESTS", "Bodies", "Count", "Exclusion", "Json", "JsonTest",
    "Lookup", "Measured", "MeterRule", "PolicySource", "Usage", "Value", "When", "billing", "meter_for", "steps",
]  # fmt: skip
