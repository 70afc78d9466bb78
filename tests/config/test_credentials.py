"""Mirrors sidecar/config/credentials.py."""

import anthropic
import httpx
import httpx2
import openai
import pytest

from sidecar.core.http.request import HeadLimits, read_request

KEY = "some-key-of-ours"
ROUTE = "routes:\n- id: r\n  match: {path: /**}\n  credentials: "


def read(route, headers=(), target=b"/a"):
    """The first credential that the route's places hold."""
    pairs = [(b"Host", b"h"), *((name.encode(), value.encode()) for name, value in headers)]
    request = read_request(("POST", target, 1), pairs, HeadLimits())
    return next((found for source in route.sources if (found := source.read(source, request)) is not None), None)


def headers_of(library, http, **options):
    """The fields that a client of a vendor's library sends; `http` is the package by which it sends them."""
    sent = []

    def answer(request):
        sent.append(request)
        return http.Response(200, json={})

    with http.Client(transport=http.MockTransport(answer)) as client:
        library(http_client=client, base_url="http://h", **options).post("/a", cast_to=object)
    return [(name, value) for name, value in sent[0].headers.items() if name != "host"]


# Fails if the name of a preset's header is not the one that the vendor's own library sends.
@pytest.mark.parametrize(
    ("preset", "library", "http", "options"),
    [
        ("openai", openai.OpenAI, httpx, {"api_key": KEY}),
        ("azure", openai.AzureOpenAI, httpx, {"api_key": KEY, "api_version": "v1"}),
        ("azure", openai.AzureOpenAI, httpx, {"azure_ad_token": KEY, "api_version": "v1"}),
        ("anthropic", anthropic.Anthropic, httpx2, {"api_key": KEY}),
        ("anthropic", anthropic.Anthropic, httpx2, {"auth_token": KEY}),
    ],
)
def test_the_key_of_a_vendors_library_is_found(load, preset, library, http, options):
    assert read(load(ROUTE + preset).routes[0], headers_of(library, http, **options)) == KEY.encode()


# As google-genai 3.6 and curl send it (`x-goog-api-key`, `?key=`): the library is not among the tests' dependencies.
@pytest.mark.parametrize(
    ("headers", "target"), [([("x-goog-api-key", KEY)], b"/a"), ([], b"/a?alt=sse&key=" + KEY.encode())]
)
def test_the_key_of_gemini_is_found_in_both_places(load, headers, target):
    assert read(load(ROUTE + "gemini").routes[0], headers, target) == KEY.encode()


@pytest.mark.parametrize("preset", ["openai", "azure", "gemini"])
def test_a_preset_replaces_the_default(load, preset):
    assert read(load(ROUTE + preset).routes[0], [("X-Api-Key", KEY)]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("opnai", "p.yaml:4: routes[0].credentials: unknown preset 'opnai'; did you mean 'openai'?"),
        ("[openai, basic]", "p.yaml:4: routes[0].credentials[0]: 'openai' is a list of places: write `credentials: "),
        ("[bearr]", "p.yaml:4: routes[0].credentials[0]: unknown place of a key 'bearr'; did you mean 'bearer'?"),
        ("[{header: A, query: b}]", "p.yaml:4: routes[0].credentials[0]: names one place"),
    ],
)
def test_each_fault_is_reported_at_its_line_with_the_remedy(faults, text, said):
    assert faults(ROUTE + text)[0].startswith(said)
