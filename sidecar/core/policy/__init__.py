"""The compiled policy: routes, plans, limits and meters, the terms of a plan on a route, and the matching of routes."""

from sidecar.core.limits import Limit
from sidecar.core.policy.meter import Arriving, Excluded, Exclusion, Facts, Meter, Tap
from sidecar.core.policy.model import (
    DEFAULT_SOURCES,
    INHERITED,
    NO_HASHES,
    NORMALISE,
    NOWHERE,
    PRESERVE,
    REFUSE,
    Hashes,
    Plan,
    Route,
    Timeouts,
)
from sidecar.core.policy.paths import path_problem
from sidecar.core.policy.patterns import (
    ANY,
    REST,
    glob,
    head_test,
    host_name,
    model_key,
    regex,
    segments,
    specificity,
    ties,
)
from sidecar.core.policy.policy import CACHED_PATHS, Policy
from sidecar.core.policy.spellings import Escape, escapes
from sidecar.core.policy.terms import Terms

__all__ = [
    "ANY", "CACHED_PATHS", "DEFAULT_SOURCES", "INHERITED", "NORMALISE", "NOWHERE", "NO_HASHES", "PRESERVE", "REFUSE",
    "REST", "Arriving", "Escape", "Excluded", "Exclusion", "Facts", "Hashes", "Limit", "Meter", "Plan", "Policy",
    "Route", "Tap", "Terms", "Timeouts", "escapes", "glob", "head_test", "host_name", "model_key", "path_problem",
    "regex", "segments", "specificity", "ties",
]  # fmt: skip
