"""All that is known of one vendor: how its requests and answers are recognised, and how they are read.

A vendor is one module with a `VENDOR`, and one line in vendors.py. No other module knows vendors by name, but for the
usage that is requested on a client's behalf, which is OpenAI's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sidecar.core.usage.ai.kinds import Counts
from sidecar.core.usage.ai.seen import Seen


class Vendor(NamedTuple):
    """`name` is what policies call it. `read` reads an answer or an event of one; `kinds` divides its figures.

    Of requests: `endpoints` are ends of paths, `streams` those that are always streamed, `silent` those without output;
    `model_in_path` is a pattern with one group. `request_members` are sent to this vendor only. The members that bound
    the output are `bounds`, those that multiply it `times`; both are read in the objects `settings` as well.
    Of answers: members, values of `type` (a last `.` allows any continuation), and members of `usage` that tell it.
    """

    name: str
    read: Callable[[Mapping[str, Any], Seen], None]
    kinds: Callable[[Counts], dict[str, int]]
    endpoints: tuple[str, ...]
    streams: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    model_in_path: str = ""
    request_members: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    answer_members: tuple[str, ...] = ()
    answer_types: tuple[str, ...] = ()
    usage_members: tuple[str, ...] = ()
