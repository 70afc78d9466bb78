"""The report of `sidecar check`: what `run` would do with these settings, and where it would fail."""
