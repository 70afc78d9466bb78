"""What an exchange consumed: meters, and what they read of requests and answers."""

from sidecar.core.usage.meters import (
    MAX_UNITS,
    QUANTITIES,
    REQUESTS,
    Count,
    Exclusion,
    Json,
    JsonTest,
    Lookup,
    Measured,
    MeterRule,
    Usage,
    Value,
    When,
    billing,
    meter_for,
)

__all__ = [
    "MAX_UNITS", "QUANTITIES", "REQUESTS", "Count", "Exclusion", "Json", "JsonTest", "Lookup", "Measured", "MeterRule",
    "Usage", "Value", "When", "billing", "meter_for",
]  # fmt: skip
