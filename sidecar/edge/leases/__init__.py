"""Leases: units reserved ahead by one worker, spent by it without asking, and given back."""

from sidecar.edge.leases.counters import Chain, Leases

__all__ = ["Chain", "Leases"]
