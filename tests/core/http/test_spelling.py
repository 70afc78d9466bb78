import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.path import NoNormalForm, normal_path, read_target
from sidecar.core.http.spelling import MAX_SEGMENTS, deviation, readings

PIECES = st.sampled_from(b"/ // . .. a %2e %61 %41 %7e ; %3b %25 %7B { %c3%a9 %C3%A9 %2F %2f %5C %5c %252F".split())
TARGETS = st.lists(PIECES, max_size=8).map(lambda pieces: b"/" + b"".join(pieces))


@pytest.mark.parametrize(
    ("target", "paths"),
    [
        (b"/a", {"/a"}),
        (b"/a?b=//%2F", {"/a"}),
        (b"/a//b", {"/a//b", "/a/b"}),
        (b"/a%2fb", {"/a%2fb", "/a%2Fb", "/a/b"}),
        (b"/a%2Fb%5Cc", {"/a%2Fb%5Cc", "/a/b%5Cc", "/a%2Fb/c", "/a/b/c"}),
        (b"/%66ree", {"/%66ree", "/free"}),
        (b"/%66/a%2Fb", {"/%66/a%2Fb", "/%66/a/b", "/f/a%2Fb", "/f/a/b"}),
        (b"/q/%2F/x", {"/q/%2F/x", "/q///x", "/q/x"}),
        (b"/%c3%a9", {"/%c3%a9", "/%C3%A9"}),
        (b"/{a}", {"/{a}", "/%7Ba%7D"}),
        (b"/a%252F//b", {"/a%252F//b", "/a%252F/b"}),
    ],
)
def test_a_target_is_read_as_servers_may_read_it(target, paths):
    assert readings(target) == paths


@pytest.mark.parametrize(
    "target",
    [
        b"//a", b"//a/b", b"/%2Fa", b"/%5ca", b"/./a", b"/a/..", b"/a/../b", b"/a/%2e%2e/b", b"/a/%2E", b"/a%2F..",
        b"/a%2f..%2fb", b"/a/..%2Fb", b"/a%5c..%5Cb", b"/a/.;x/b", b"/a%2F..;/b", b"/a%2F..%3B/b", b"/a%2F.%3bx",
    ],
)  # fmt: skip
def test_dot_segments_and_leading_slashes_are_refused_in_every_spelling(target):
    with pytest.raises(NoNormalForm):
        readings(target)


@given(TARGETS)
def test_the_normal_form_is_among_the_readings(target):
    try:
        path, *_ = read_target(target)
        paths = readings(target)
    except NoNormalForm:
        return
    assert path in paths
    assert target.decode() in paths


@given(TARGETS)
def test_no_reading_of_a_target_is_lost_by_the_order_of_its_steps(target):
    # Servers decode, separate and merge in other orders than we do; what they get is among the readings.
    try:
        paths = readings(target)
    except NoNormalForm:
        return
    steps = [
        lambda path: re.sub("//+", "/", path),
        lambda path: re.sub("%2[Ff]", "/", path),
        lambda path: re.sub("%5[Cc]", "/", path),
    ]
    for step in steps:
        assert {re.sub("//+", "/", step(path)) for path in paths} <= paths


NAMES = {
    b"/a%2Fb": "path-encoded-slash",
    b"/a%2f..//b": "path-encoded-slash",
    b"/a%5cb": "path-encoded-backslash",
    b"/a/./b": "path-dot-segment",
    b"/a/%2E%2e": "path-dot-segment",
    b"/a/..": "path-dot-segment",
    b"/a//b": "path-double-slash",
    b"/a//": "path-double-slash",
    b"/%41": "path-encoded-character",
    b"/a/.%2eb": "path-encoded-character",
    b"/%C3%a9": "path-lower-case-code",
    b"/%7b": "path-lower-case-code",
    b"/{a": "path-unencoded-character",
    b'/"': "path-unencoded-character",
    b"/a?": "path-empty-query",
}


@pytest.mark.parametrize(("target", "slug"), NAMES.items())
def test_a_deviation_is_named(target, slug):
    problem = deviation(target)
    assert (problem.status, problem.slug) == (400, slug)


# Fails if a spelling that is in normal form is named as a deviation, or if one has no name.
@given(TARGETS)
def test_what_deviates_from_the_normal_form_has_a_name(target):
    try:
        *_, is_normal = read_target(target)
    except NoNormalForm:
        return
    assert is_normal == (deviation(target).slug == "path-empty-query")


@given(st.integers(0, 255))
def test_a_code_has_the_name_of_what_its_normal_form_changes(byte):
    code = b"/%%%02X" % byte
    try:
        form = normal_path(code).encode()
    except NoNormalForm:
        return
    assert (form == code) == (deviation(code).slug == "path-empty-query")


@pytest.mark.parametrize("separator", [b"/", b"%2f", b"%2F", b"%5c", b"%5C"])
def test_a_path_of_too_many_segments_is_not_read_in_several_ways(separator):
    # Fails if a separator is not counted: each reading costs its segments, for each route.
    assert readings(b"/a%2F" + b"b".join([separator] * (MAX_SEGMENTS - 2)))
    with pytest.raises(NoNormalForm, match=f"at most {MAX_SEGMENTS} segments"):
        readings(b"/a%2F" + b"b".join([separator] * (MAX_SEGMENTS - 1)))
