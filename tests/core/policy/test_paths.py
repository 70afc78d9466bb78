import pytest

from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.policy import NORMALISE, PRESERVE, REFUSE, Route, path_problem
from tests.stage import policy


def slug(routes, target, method="GET"):
    """Of the refusal on the route that the normal form matches; "": it passes."""
    compiled = policy(routes=routes)
    request = read_request((method, target, 1), [(b"Host", b"h")], HeadLimits())
    route = compiled.match(method, request.path, request.host, request.fields)
    problem = path_problem(compiled, route, request)
    return "" if problem is None else problem.slug


@pytest.mark.parametrize(
    ("target", "slugs"),
    [
        (b"/a//b", ("", "", "path-double-slash")),
        (b"/%61", ("", "", "path-encoded-character")),
        (b"/a?", ("", "", "path-empty-query")),
        (b"/a%2Fb", ("ambiguous-path", "", "path-encoded-slash")),
        (b"/a%5Cb", ("ambiguous-path", "", "path-encoded-backslash")),
        (b"/a/./b", ("", "ambiguous-path", "path-dot-segment")),
        (b"//a", ("", "ambiguous-path", "path-double-slash")),
    ],
)
def test_each_mode_answers_a_spelling_in_its_own_way(target, slugs):
    modes = (NORMALISE, PRESERVE, REFUSE)
    assert tuple(slug([Route("all", paths=mode)], target) for mode in modes) == slugs


FREE = Route("free", "/v1/free", paths=PRESERVE)
NAMED = Route("named", "/v1/*", paths=PRESERVE)
REST = Route("rest", paths=PRESERVE)


# Express matches before it decodes, nginx after it merged and decoded, Go and Spring as they are set up.
@pytest.mark.parametrize(
    ("routes", "target", "passes"),
    [
        ([FREE, NAMED], b"/v1/%66ree", False),
        ([FREE, NAMED, REST], b"/v1//free", False),
        ([FREE, NAMED, REST], b"/v1%2Ffree", False),
        ([FREE, NAMED, REST], b"/v1%5Cfree", False),
        ([FREE, NAMED, REST], b"/v1/%66ree/x", True),
        ([NAMED], b"/v1/%66ree", True),
        ([NAMED, REST], b"/v1/a%2Fb", False),
        ([Route("deep", "/v1/**", paths=PRESERVE), REST], b"/v1/a%2Fb", True),
        ([Route("deep", "/v1/**/x", paths=PRESERVE), REST], b"/v1/a%2Fb/x", True),
        ([Route("deep", "/v1/**/x", paths=PRESERVE), REST], b"/v1/a%2Fx", False),
        ([REST, Route("gated", "/admin/x", feature="f")], b"/admin%2fx", False),
        ([REST, Route("gated", "/admin/x", feature="f")], b"/admin%2f%2fx", False),
        ([REST, Route("gated", "/admin/x", feature="f")], b"/admin/%78", True),  # sent in normal form
        ([Route("one", "/q/*", paths=PRESERVE)], b"/q/%2F", False),
    ],
)
def test_all_that_a_server_may_read_has_to_match_the_same_route(routes, target, passes):
    assert slug(routes, target) == ("" if passes else "ambiguous-path")


def test_only_routes_of_the_method_count():
    writes = Route("write", "/a/x", frozenset({"POST"}), paths=PRESERVE)
    assert slug([writes, REST], b"/a%2Fx") == ""
    assert slug([writes, REST], b"/a%2Fx", "POST") == "ambiguous-path"


# The model in the path decides the price. Fails if `models/dear%2Fcheap` is priced as `cheap`.
def test_an_encoded_slash_is_refused_on_ai_routes():
    route = Route("ai", usage="gemini", paths=PRESERVE)
    assert slug([route], b"/v1beta/models/dear%2Fcheap:generateContent") == "ambiguous-path"
    assert slug([route], b"/v1beta/models//cheap:generateContent") == ""
