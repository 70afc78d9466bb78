"""Leases: units reserved ahead by one worker, spent by it without asking, and given back."""

from sidecar.edge.leases.counters import Chain, Leases
from sidecar.edge.leases.shared_table import BYTES, SharedLeaseTable

__all__ = ["BYTES", "Chain", "Leases", "SharedLeaseTable"]
