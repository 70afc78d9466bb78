"""Mirrors sidecar/config/cors.py."""

import pytest

ROUTE = "routes:\n- id: r\n  match: {path: /**}\n  cors:\n"
AT = "p.yaml:5: routes[0].cors"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("    origins: []", f"{AT}.origins: is empty: give at least one"),
        ("    origins: [https://app.example/]", f"{AT}.origins[0]: 'https://app.example/' is not as browsers write it"),
        ("    origins: [https://App.example]", "write 'https://app.example'"),
        ("    origins: [https://app.example:443]", "write 'https://app.example'"),
        ("    origins: [app.example]", f"{AT}.origins[0]: 'app.example' is not an origin: write the scheme"),
        ("    origins: [https://a.example/path]", "is not an origin"),
        ("    origins: ['https://*.example']", f"{AT}.origins[0]: 'https://*.example' has a star inside"),
        ("    origins: ['null']", f"{AT}.origins[0]: 'null' is sent by pages of any site"),
        ("    origins: ['*', https://a.example]", f"{AT}.origins: has `*` beside other origins"),
        (
            "    origins: ['*']\n    credentials: true",
            "p.yaml:6: routes[0].cors.credentials: is not possible with every origin",
        ),
        (
            "    origins: ['*']\n    headers: [a b]",
            "p.yaml:6: routes[0].cors.headers[0]: 'a b' is not right: write the name",
        ),
        (
            "    origins: ['*']\n    max_age: 2d",
            "p.yaml:6: routes[0].cors.max_age: should be less than or equal to 86400",
        ),
        ("    origin: ['*']", "routes[0].cors.origin: is not known here; did you mean 'origins'?"),
    ],
)
def test_each_fault_is_reported_at_its_line_with_the_remedy(faults, text, said):
    found = faults(ROUTE + text)
    assert any(said in fault for fault in found), found


def test_a_rule_has_all_its_fields_and_the_fields_that_carry_the_key(load):
    cors = (
        load(
            ROUTE + "    origins: [https://app.example, 'http://localhost:5173', 'capacitor://localhost']\n"
            "    headers: [Content-Type, x-api-key]\n    credentials: true\n    max_age: 1h\n"
            "  credentials: [bearer, {header: X-Api-Key}, {query: key}]"
        )
        .routes[0]
        .cors
    )
    assert cors.origins == {"https://app.example", "http://localhost:5173", "capacitor://localhost"}
    assert cors.headers == ("Content-Type", "x-api-key", "Authorization")
    assert (cors.credentials, cors.max_age_s) == (True, 3600)


def test_one_origin_needs_no_list_and_the_rest_has_defaults(load):
    cors = load(ROUTE + "    origins: https://app.example").routes[0].cors
    assert (cors.origins, cors.headers, cors.credentials, cors.max_age_s) == ({"https://app.example"}, (), False, 600)


def test_a_route_without_a_rule_has_none(load):
    assert load("routes: [{id: r, match: {path: /**}}]").routes[0].cors is None
