"""Fixtures that every test may ask for; each lives with the server it starts. And what holds for all properties.

Examples are the same in each run, and none has a time to keep: a run's outcome depends on the code, not on chance or on
the machine's load. `--hypothesis-profile explore` looks for new ones.
"""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.kafka", "tests.servers.redis"]

_ANY_LOAD = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **_ANY_LOAD)
settings.register_profile("explore", max_examples=1_000, print_blob=True, **_ANY_LOAD)
settings.load_profile("same")
