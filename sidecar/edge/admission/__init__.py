"""Decorators of the counters: circuit breaker, cache of denials, drift, and the guard after a loss of the store."""
