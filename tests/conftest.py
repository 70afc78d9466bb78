"""Fixtures that every test may ask for; each lives with the server it starts."""

pytest_plugins = ["tests.servers.kafka", "tests.servers.redis"]
