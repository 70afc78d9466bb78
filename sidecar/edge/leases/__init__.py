"""Leases: units reserved ahead by one worker, spent by it without asking, and given back."""

from sidecar.edge.leases.counters import Chain, Leases
from sidecar.edge.leases.remains import BYTES, Remains

__all__ = ["BYTES", "Chain", "Leases", "Remains"]
