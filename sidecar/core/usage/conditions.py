"""The conditions under which a meter counts and an exclusion matches, compiled for one route.

A condition of the head or the status is true or false. One of a body can also be unknown (too large, cut, not JSON).
All conditions together: one False gives False, even where others are unknown; else one unknown gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sidecar.core.http import Request
from sidecar.core.policy import ANY, Arriving, Facts, Tap, glob, model_key
from sidecar.core.usage.rules import JsonTest, When

EXCEPT: Final = "!"

# Tests read a request (on arrival) or the facts (afterwards), which differ only in how header fields are read.
Field = Callable[[Any, bytes], bytes | None]
Test = Callable[[Any], bool]
BodyTest = Callable[[Tap], bool | None]


def field_of_request(request: Request | Arriving, name: bytes) -> bytes | None:
    """A header field of a request on arrival, by lower-case name."""
    return request.fields.get(name)


def field_of_facts(facts: Facts, name: bytes) -> bytes | None:
    """A header field of the request of an exchange that has ended."""
    return facts.request_header(name)


def head_inputs(when: When) -> set[str]:
    """The parts of the request's head that the conditions read: method, header."""
    return {name for name, used in (("method", when.methods is not None), ("header", when.headers)) if used}


def headers_of(when: When) -> set[bytes]:
    """The header fields of the request that the conditions read, by lower-case name."""
    return {name for name, _ in when.headers}


def sides(when: When) -> set[str]:
    """The bodies that the conditions read: request, response."""
    return {test.side for test in when.json} | ({"request"} if when.json_rpc or when.models else set())


def status_tests(when: When) -> list[Test]:
    """The tests of the status, which is known only afterwards."""
    statuses = when.statuses
    return [] if statuses is None else [lambda facts: facts.status in statuses]


def head_tests(when: When, field: Field) -> list[Test]:
    """The tests of the request's head."""
    methods = when.methods
    tests: list[Test] = [] if methods is None else [lambda exchange: exchange.method in methods]
    return tests + [_header_test(name, values, field) for name, values in when.headers]


def _header_test(name: bytes, values: frozenset[bytes], field: Field) -> Test:
    if not values:
        return lambda exchange: field(exchange, name) is not None
    return lambda exchange: field(exchange, name) in values


def body_tests(when: When, *, arriving: bool) -> list[BodyTest]:
    """The tests of bodies, except those of JSON-RPC methods, which are per call; `arriving`: of the request only."""
    tests = [_json_test(test) for test in when.json if not arriving or test.side == "request"]
    return [*tests, _model_test(when.models)] if when.models else tests


def judge(tests: Sequence[BodyTest], tap: Tap | None) -> bool | None:
    """Whether all tests are true; None: unknown."""
    if not tests:
        return True
    if tap is None:
        return None
    results = {test(tap) for test in tests}
    return False if False in results else None if None in results else True


def named(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A test whether a name matches one of `patterns`, in which `*` is any run of characters."""
    patterns = list(patterns)
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    loose = [glob(pattern) for pattern in patterns if "*" in pattern]
    if not loose:
        return exact.__contains__
    return lambda name: name in exact or any(matches(name) for matches in loose)


def chosen(patterns: Iterable[str]) -> Callable[[str], bool]:
    """The same for models and methods, where `!` before a pattern is an exception; exceptions alone: all others."""
    given = set(patterns)
    excepted = {pattern for pattern in given if pattern.startswith(EXCEPT)}
    wanted = named(given - excepted or {ANY})
    if not excepted:
        return wanted
    unwanted = named(pattern.removeprefix(EXCEPT) for pattern in excepted)
    return lambda name: wanted(name) and not unwanted(name)


def _json_test(test: JsonTest) -> BodyTest:
    side, pointer = test.side, test.pointer
    matches = named(test.values) if test.values else None

    def matches_value(tap: Tap) -> bool | None:
        text = tap.text(side, pointer)
        if text is None:
            return False if tap.known(side, pointer) else None
        return matches is None or matches(text)

    return matches_value


def _model_test(models: Sequence[str]) -> BodyTest:
    matches = chosen(map(model_key, models))
    return lambda tap: matches(model_key(tap.model)) if tap.model else None
