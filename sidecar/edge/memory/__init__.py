"""Counters, alerts, retries and wallets in the memory of a single node, and the file of their state."""
