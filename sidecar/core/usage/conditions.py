"""When a meter counts and an exclusion holds: the conditions of a policy, compiled for one route.

What a head or a status says is true or false. What a body says can also be not known (too large, cut, no JSON), and
then no condition that is false may hide behind it: one False is False, whatever else is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sidecar.core.http import Request
from sidecar.core.policy import ANY, Arriving, Facts, Tap, glob
from sidecar.core.usage.rules import JsonTest, When

EXCEPT: Final = "!"

# Tests read a request (on arrival) or the facts (afterwards); only header fields are found differently.
Field = Callable[[Any, bytes], bytes | None]
Test = Callable[[Any], bool]
BodyTest = Callable[[Tap], bool | None]


def field_of_request(request: Request | Arriving, name: bytes) -> bytes | None:
    """A header field of a request on arrival, by lower-case name."""
    return request.fields.get(name)


def field_of_facts(facts: Facts, name: bytes) -> bytes | None:
    """A header field of the request of an exchange that has ended."""
    return facts.request_header(name)


def looks(when: When) -> set[str]:
    """What of the request's head it looks at: method, header."""
    return {name for name, asked in (("method", when.methods is not None), ("header", when.headers)) if asked}


def sides(when: When) -> set[str]:
    """The bodies that it looks at: request, response."""
    return {test.side for test in when.json} | ({"request"} if when.json_rpc or when.models else set())


def status_tests(when: When) -> list[Test]:
    """What is known only afterwards."""
    statuses = when.statuses
    return [] if statuses is None else [lambda facts: facts.status in statuses]


def head_tests(when: When, field: Field) -> list[Test]:
    """What the request's head says."""
    methods = when.methods
    tests: list[Test] = [] if methods is None else [lambda exchange: exchange.method in methods]
    return tests + [_header_test(name, values, field) for name, values in when.headers]


def _header_test(name: bytes, values: frozenset[bytes], field: Field) -> Test:
    if not values:
        return lambda exchange: field(exchange, name) is not None
    return lambda exchange: field(exchange, name) in values


def body_tests(when: When, *, arriving: bool) -> list[BodyTest]:
    """What bodies say, but for JSON-RPC methods, which are judged call by call; `arriving`: of the request's alone."""
    tests = [_json_test(test) for test in when.json if not arriving or test.side == "request"]
    return [*tests, _model_test(when.models)] if when.models else tests


def judge(tests: Sequence[BodyTest], tap: Tap | None) -> bool | None:
    """Whether all hold; None where that is not known."""
    if tap is None:
        return None if tests else True
    found = {test(tap) for test in tests}
    return False if False in found else None if None in found else True


def named(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name is one of `patterns`, in which `*` is any run of characters."""
    patterns = list(patterns)
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    loose = [glob(pattern) for pattern in patterns if "*" in pattern]
    if not loose:
        return exact.__contains__
    return lambda name: name in exact or any(matches(name) for matches in loose)


def chosen(patterns: Iterable[str]) -> Callable[[str], bool]:
    """The same for models and methods, where `!` before a pattern makes an exception; with these alone, all others."""
    given, excepted = set(patterns), {pattern for pattern in patterns if pattern.startswith(EXCEPT)}
    wanted = named(given - excepted or {ANY})
    if not excepted:
        return wanted
    unwanted = named(pattern.removeprefix(EXCEPT) for pattern in excepted)
    return lambda name: wanted(name) and not unwanted(name)


def _json_test(test: JsonTest) -> BodyTest:
    side, pointer = test.side, test.pointer
    matches = named(test.values) if test.values else None

    def holds(tap: Tap) -> bool | None:
        text = tap.text(side, pointer)
        if text is None:
            return False if tap.known(side) else None
        return matches is None or matches(text)

    return holds


def _model_test(models: Sequence[str]) -> BodyTest:
    matches = chosen(models)
    return lambda tap: matches(tap.model) if tap.model else None
