"""Carries the records of the journals to a sink; the sink that writes files."""
