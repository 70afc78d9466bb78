"""The rules. Pure: values in, values out; no socket, no clock, no randomness, no logging, no environment."""
