"""Input and output: one technology a file; no file here knows another."""
