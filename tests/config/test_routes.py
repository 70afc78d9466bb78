"""Mirrors sidecar/config/routes.py."""

import pytest

from sidecar.core.policy import Timeouts

AI = "routes: [{id: r, match: {path: /}, "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "routes:\n  - id: r\n    match: {path: /}\n    upstream: defalt",
            "p.yaml:4: routes[0].upstream: 'defalt' is not defined; did you mean 'default'?",
        ),
        (
            "routes: [{id: r, match: {path: /}, feature: chta}]\nplans: {p: {features: [chat]}}",
            "p.yaml:1: routes[0].feature: 'chta' is not defined; did you mean 'chat'?",
        ),
        ("routes: [{id: r, match: {path: v1}}]", "p.yaml:1: routes[0].match.path: 'v1' does not begin with a slash"),
        ("routes: [{id: r, match: {path: /v*}}]", "'/v*' has a star inside a segment: `*` is one whole segment"),
        ("routes: [{id: r, match: {path: /**/**}}]", "has `**` twice in a row: once is enough"),
        ("routes: [{id: r, match: {path: //a}}]", "'//a' is not in normal form: write '/a'"),
        ("routes: [{id: r, match: {path: /a/../b}}]", "write '/b'"),
        ("routes: [{id: r, match: {path: /%61}}]", "write '/a'"),
        ("routes: [{id: r, match: {path: /ü}}]", "write '/%C3%BC'"),
        ("routes: [{id: r, match: {path: '/a?x=1'}}]", "'/a?x=1' has a query: only the path is matched"),
        ("routes: [{id: r, match: {path: '/a%2fb'}}]", "'/a%2fb' is not a path: an encoded slash"),
        (
            "routes:\n- {id: a, match: {path: /x/*/y}}\n- {id: b, match: {path: /x/*/y}}",
            "p.yaml:3: routes[1].match: is as specific as 'a' at p.yaml:2, and some requests match both: make one path",
        ),
        (
            "routes: [{id: r, match: {path: /}, credentials: [{header: X-A, query: k}]}]",
            "p.yaml:1: routes[0].credentials[0]: names one place: header, query, bearer or basic",
        ),
        (AI + "usage: opnai}]", "p.yaml:1: routes[0].usage: unknown AI API 'opnai'; did you mean 'openai'?"),
        (
            AI + "usage: openai, estimate: {output: 100, ceiling: 50}}]",
            "routes[0].estimate.ceiling: 50 is below output, 100",
        ),
        (AI + "usage: openai, estimate: {ceiling: 512}}]", "routes[0].estimate.ceiling: 512 is below output, 1024"),
        (AI + "estimate: {output: 100}}]", "routes[0].estimate: needs `usage: openai` or another beside it"),
        (AI + "drain: 5s}]", "routes[0].drain: needs `usage: openai`"),
        (AI + "models: {gpt-4*: big}}]\nplans: {p: {features: [big]}}", "routes[0].models: needs `usage: openai`"),
        (
            AI + "usage: openai, models: {'gpt-4*': bgi}}]\nplans: {p: {features: [big]}}",
            "routes[0].models.gpt-4*: 'bgi' is not defined; did you mean 'big'?",
        ),
        (
            AI + "usage: openai, models: {'!o3': f}}]\nplans: {p: {features: [f]}}",
            "models.!o3: makes no exception here",
        ),
        ("routes: [{id: r, match: {path: /}, max_body: abc}]", "routes[0].max_body: 'abc' is not a quantity"),
        (AI + "paths: exact}]", "routes[0].paths: should be 'normalise', 'preserve' or 'refuse'"),
        (AI + "body: 1GiB}]", "routes[0].body: should be less than or equal to 67108864"),
        (AI + "usage: openai, drain: 1h}]", "routes[0].drain: should be less than or equal to 600000"),
    ],
)
def test_each_fault_is_told_at_its_line_with_what_would_be_right(faults, text, said):
    assert faults(text)[0].startswith(said) or said in faults(text)[0]


def test_what_is_read_of_ai_requests_is_compiled_with_all_its_fields(load):
    policy = load(
        "routes:\n- id: r\n  match: {path: /v1/**}\n  usage: openai\n  estimate: {output: 256, ceiling: 4096}\n"
        "  models: {'gpt-4*': big}\n  body: 2MiB\n  drain: 5s\nplans: {p: {features: [big]}}"
    )
    route = policy.routes[0]
    assert (route.usage, route.default_output, route.ceiling) == ("openai", 256, 4096)
    assert (route.models, route.body_bytes, route.drain_ms) == ((("gpt-4*", "big"),), 2 << 20, 5_000)
    assert route.reads == {"request", "response"}


def test_a_route_that_reads_nothing_says_so_and_has_the_defaults_of_the_core(load):
    route = load("routes: [{id: r, match: {path: /**}}]").routes[0]
    assert (route.usage, route.reads, route.models) == ("", frozenset(), ())
    assert (route.default_output, route.ceiling, route.body_bytes, route.drain_ms) == (1024, 65_536, 1 << 20, 30_000)


def test_a_drain_of_nothing_is_no_default(load):
    assert load("routes: [{id: r, match: {path: /**}, usage: auto, drain: 0}]").routes[0].drain_ms == 0


def test_a_model_s_feature_may_be_one_that_a_customer_alone_has(load):
    load(
        "routes: [{id: r, match: {path: /**}, usage: auto, models: {'o*': big}}]\nplans: {p: {}}\n"
        "customers: {c: {plan: p, features: [big]}}"
    )


def test_a_route_is_compiled_with_all_its_fields(load):
    policy = load(
        "routes:\n- id: r\n  match: {path: /a, methods: [GET]}\n  "
        "credentials: [{query: api_key}, basic, {header: X-K}]\n"
        "  keep_credential: true\n  unattributed: allow\n  identity_headers: true\n  feature: f\n"
        "  timeouts: {first_byte: 5s, total: 0}\n  max_body_bytes: 1MiB\nplans: {p: {features: [f]}}\n"
    )
    route = policy.routes[0]
    assert [(source.kind, source.name) for source in route.sources] == [
        ("query", b"api_key"),
        ("basic", b"Authorization"),
        ("header", b"X-K"),
    ]
    assert (route.keep_credential, route.unattributed, route.identity_headers, route.feature) == (
        True,
        "allow",
        True,
        "f",
    )
    assert route.timeouts == Timeouts(first_byte_ms=5_000, total_ms=0)
    assert (route.max_body_bytes, route.methods) == (1 << 20, {"GET"})


def test_a_key_is_looked_for_in_its_header_and_then_as_a_bearer_unless_a_route_says_otherwise(load):
    for policy in (load(""), load("routes: [{id: r, match: {path: /**}}]")):
        assert [(source.kind, source.name) for source in policy.routes[0].sources] == [
            ("header", b"X-Api-Key"),
            ("bearer", b"Authorization"),
        ]


def test_a_host_and_headers_of_a_route_are_compiled(load):
    policy = load(
        "routes:\n- {id: a, match: {path: /**, host: '*.Example.com', "
        "headers: {X-Tier: [gold, silver], X-Beta: '*'}}}\n- {id: b, match: {path: /**, host: API.example.com}}\n"
    )
    b, a = policy.routes
    assert (a.host, b.host) == ("*.example.com", "api.example.com")
    assert a.headers == ((b"x-tier", frozenset({b"gold", b"silver"})), (b"x-beta", frozenset()))
    assert policy.headers == {b"x-tier", b"x-beta"}
    assert policy.match("GET", "/", b"eu.example.com", {b"x-tier": b"gold", b"x-beta": b""}) is a


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ("host: 'api.example.com:80'", "'api.example.com:80' is not right: write the name of a host without its port"),
        ("host: 'api.*.com'", "'api.*.com' is not right"),
        ("host: '*'", "'*' is not right"),
        ("host: api.example.com.", "'api.example.com.' is not right"),
        ("headers: {}", "is empty: give at least one"),
        ("headers: {Host: a}", "routes[0].match.headers.Host: is matched by `host: a` beside `path`"),
        (
            "headers: {TE: trailers}",
            "match.headers.TE: is set or removed by the sidecar, so the API would not see it",
        ),
        ("headers: {X-A: b, x-a: c}", "routes[0].match.headers.x-a: is there twice: give all values in one list"),
    ],
)
def test_a_host_or_header_that_no_request_could_match_is_a_fault(faults, match, said):
    (fault,) = faults(f"routes: [{{id: r, match: {{path: /, {match}}}}}]")
    assert said in fault


def test_two_routes_of_one_path_may_differ_in_their_host(load, faults):
    one = "routes:\n- {id: a, match: {path: /x, host: a.example.com}}\n"
    load(one + "- {id: b, match: {path: /x, host: b.example.com}}\n")
    assert "is as specific as 'a'" in faults(one + "- {id: b, match: {path: /x, host: A.example.com}}\n")[0]


def test_a_route_may_match_an_offer_of_an_upgrade(load):
    assert load("routes: [{id: r, match: {path: /, headers: {Upgrade: websocket}}}]").headers == {b"upgrade"}


def test_paths_are_normalised_unless_their_route_says_otherwise(load):
    routes = load("routes: [{id: a, match: {path: /a}}, {id: b, match: {path: /b}, paths: preserve}]").routes
    assert {route.id: route.paths for route in routes} == {"a": "normalise", "b": "preserve"}
