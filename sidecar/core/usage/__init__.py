"""The usage of an exchange: meters, the values that they read from requests and answers, and billing."""

from sidecar.core.usage.billing import billing
from sidecar.core.usage.body import MAX_CALLS, Bodies, steps
from sidecar.core.usage.exclusions import Exclusion
from sidecar.core.usage.meters import meter_for, meters_for
from sidecar.core.usage.policy_source import PolicySource
from sidecar.core.usage.quantities import QUANTITIES
from sidecar.core.usage.rules import (
    MAX_UNITS,
    REQUESTS,
    Aggregate,
    Count,
    Json,
    JsonTest,
    Lookup,
    Measured,
    MeterRule,
    Scaled,
    Sum,
    Usage,
    Value,
    When,
)

__all__ = [
    "MAX_CALLS", "MAX_UNITS", "QUANTITIES", "REQUESTS", "Aggregate", "Bodies", "Count", "Exclusion", "Json", "JsonTest",
    "Lookup", "Measured", "MeterRule", "PolicySource", "Scaled", "Sum", "Usage", "Value", "When", "billing",
    "meter_for", "meters_for", "steps",
]  # fmt: skip
