"""What an exchange consumed: meters, and what they read of requests and answers; and what of it is not billed."""

from sidecar.core.usage.billing import billing
from sidecar.core.usage.body import MAX_CALLS, Bodies, steps
from sidecar.core.usage.draft import Draft
from sidecar.core.usage.exclusions import Exclusion
from sidecar.core.usage.meters import QUANTITIES, meter_for
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
    "MAX_CALLS", "MAX_UNITS", "QUANTITIES", "REQUESTS", "Bodies", "Count", "Draft", "Exclusion", "Json", "JsonTest",
    "Lookup", "Measured", "MeterRule", "Usage", "Value", "When", "billing", "meter_for", "steps",
]  # fmt: skip
