import re
from time import perf_counter, process_time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.http.path import _PCHAR, _UNRESERVED, NoNormalForm, normal_path, read_target, recoded

PIECES = st.sampled_from(
    [
        b"/",
        b"//",
        b".",
        b"..",
        b"a",
        b"B",
        b"%2e",
        b"%2E",
        b"%61",
        b"%41",
        b"%7e",
        b"~",
        b";",
        b"%3b",
        b"%25",
        b"%20",
        b"!",
        b"{",
        b"%c3%a9",
        b"%C3%A9",
        b"%e2%82%ac",
        b"|",
        b"-",
        b"%5f",
        b"@",
        b":",
        b"%2F",
        b"\\",
        b"%5c",
        b"%00",
        b"%",
        b"%g0",
        b"%c0%af",
        b"..;",
        b"%ff",
    ]
)
PATHS = st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces))
UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def naive(raw):
    """The same rule by other means: decode all, refuse by looking, collapse, walk the segments, encode again."""
    if re.search(rb"%(?![0-9A-Fa-f]{2})", raw) or re.search(rb"%2f|%5c|\\|%[01][0-9a-f]|%7f", raw, re.IGNORECASE):
        return None
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return None
    segments = []
    for segment in re.sub(rb"/+", b"/", raw).split(b"/")[1:]:
        out = ""
        for part in re.findall(rb"%..|.", segment, re.DOTALL):
            byte = int(part[1:], 16) if len(part) == 3 else part[0]
            keeps = UNRESERVED if len(part) == 3 else UNRESERVED + b"!$&'()*+,;=:@"
            out += chr(byte) if byte in keeps else f"%{byte:02X}"
        segments.append(out)
    kept = []
    for place, segment in enumerate(segments):
        if re.match(r"\.\.?;", segment):
            return None
        if segment == "..":
            if not kept:
                return None
            kept.pop()
        if segment not in {".", ".."}:
            kept.append(segment)
        elif place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def normal(raw):
    try:
        return normal_path(raw)
    except NoNormalForm:
        return None


# Fails if dots are removed before percent signs are decoded, if slashes are not collapsed, or if `..;` is let through.
@given(PATHS)
@example(b"/a/%2e%2e/b")
@example(b"/a/..;/b")
@example(b"//x")
def test_the_normal_form_is_what_a_naive_reading_gives(raw):
    assert normal(raw) == naive(raw)


@given(PATHS)
def test_a_normal_form_is_its_own_normal_form(raw):
    found = normal(raw)
    assert found is None or normal(found.encode()) == found


@given(PATHS)
def test_a_normal_form_holds_nothing_that_a_second_server_could_resolve(raw):
    found = normal(raw)
    if found is None:
        return
    assert found.startswith("/")
    assert "//" not in found
    assert not re.search(r"/\.\.?(/|;|$)", found)
    assert re.fullmatch(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+", found)
    assert all(int(pair, 16) not in UNRESERVED for pair in re.findall("%(..)", found))


@given(PATHS, st.data())
def test_two_spellings_of_a_path_have_one_normal_form(raw, data):
    found = normal(raw)
    if found is None:
        return
    spelled = b""
    for char in re.findall(r"%..|.", found):
        code = ord(char) if len(char) == 1 else 0
        how = data.draw(st.integers(0, 2))
        if char == "/":
            spelled += (b"/", b"//", b"/./")[how]
        elif code in UNRESERVED and how:
            spelled += b"%%%02x" % code if how == 1 else b"%%%02X" % code
        else:
            spelled += char.lower().encode() if len(char) == 3 and how else char.encode()
    assert normal(spelled) == found


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        (b"/", "/"),
        (b"", "/"),
        (b"/v1/chat/completions", "/v1/chat/completions"),
        (b"//x", "/x"),
        (b"/a/%2e%2e/b", "/b"),
        (b"/a/b/..", "/a/"),
        (b"/a/.", "/a/"),
        (b"/%7Euser", "/~user"),
        (b"/a%3Ab", "/a%3Ab"),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        (b"/%252e%252e/x", "/%252e%252e/x"),
        (b"/.well-known/x", "/.well-known/x"),
        (b'/a"b', "/a%22b"),
    ],
)
def test_one_spelling_is_matched_and_forwarded(raw, form):
    assert normal_path(raw) == form


@pytest.mark.parametrize(
    "raw",
    [
        b"/a\\b", b"/a%5cb", b"/a%2fb", b"/a%2Fb", b"/a%00b", b"/%0d%0a", b"/%7f", b"/..", b"/a/../..", b"/%2e%2e/x",
        b"/..;/x", b"/a/.;x/b", b"/%2e%2e;x=1/y", b"/%", b"/%4", b"/%zz", b"/%+1", b"/% 1", b"/%c0%ae%c0%ae/x",
        b"/%c0%af", b"/%e0%80%af", b"/%ed%a0%80", b"/%ff", b"/%f5%80%80%80", b"x", b"*",
    ],
)  # fmt: skip
def test_a_path_that_two_servers_could_read_differently_has_no_normal_form(raw):
    with pytest.raises(NoNormalForm):
        normal_path(raw)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a", ("/a", "", b"", b"/a", True)),
        (b"/a?b=/../c", ("/a", "b=/../c", b"", b"/a?b=/../c", True)),
        (b"/a?b?c", ("/a", "b?c", b"", b"/a?b?c", True)),
        (b"/a?", ("/a", "", b"", b"/a?", False)),
        (b"/%61?b=%61", ("/a", "b=%61", b"", b"/%61?b=%61", False)),
        (b"/a%2Fb", ("/a%2Fb", "", b"", b"/a%2Fb", False)),
        (b"/a%5cb", ("/a%5Cb", "", b"", b"/a%5cb", False)),
        (b"/a?b=%2F", ("/a", "b=%2F", b"", b"/a?b=%2F", True)),
        (b"http://h/a//b?c", ("/a/b", "c", b"h", b"/a//b?c", False)),
        (b"http://h/a?c", ("/a", "c", b"h", b"/a?c", True)),
        (b"HTTPS://h:1", ("/", "", b"h:1", b"/", True)),
        (b"http://h?x", ("/", "x", b"h", b"/?x", True)),
    ],
)
def test_a_target_is_a_path_and_a_query_and_perhaps_an_authority(target, parts):
    assert read_target(target) == parts


# Fails if a plain target is copied for every request.
def test_a_plain_target_is_referred_to():
    target = b"/v1/chat"
    assert read_target(target)[3] is target


@given(PATHS)
def test_a_target_is_normal_if_it_is_its_own_normal_form(raw):
    form = normal(raw)
    try:
        *_, is_normal = read_target(raw)
    except NoNormalForm:
        assert form is None
        return
    assert is_normal == (form is not None and form.encode() == raw)


@pytest.mark.parametrize(
    "target",
    [b"*", b"a", b"/a#b", b"http://u@h/", b"http:///x", b"ftp://h/", b"http://h#f", b"h:443", b"http:/x", b"?"],
)
def test_any_other_form_of_a_target_is_refused(target):
    with pytest.raises(NoNormalForm):
        read_target(target)


# Fails if long targets are cached as well: a client could fill the memory with them.
def test_a_long_target_is_read_but_not_kept():
    long = b"/%61" + b"x" * 8000
    assert read_target(long)[0] is not read_target(long)[0]
    assert read_target(b"/%61short")[0] is read_target(b"/%61short")[0]
    assert read_target(b"/plain")[0] is not read_target(b"/plain")[0]  # read faster than it would be found again


@pytest.mark.parametrize("raw", [b"/" + b"." * 8000 + b"\\", b"/" + b"/." * 4000 + b";", b"/a" * 4000 + b"\\"])
def test_the_longest_bad_path_is_refused_in_linear_time(raw):
    begun = perf_counter()
    with pytest.raises(NoNormalForm):
        normal_path(raw)
    assert perf_counter() - begun < 0.1


CODED = st.sampled_from(
    [b"%41", b"%7c", b"%7C", b"%2f", b"%5C", b"%", b"%c3%a9", b"%e2", b"%zz", b"%25", b"%0a", b"%7F"]
)
PLAIN = st.sampled_from([b"|", b"/..", b"//", b";", b"a", b"\\", b" "]) | st.binary(max_size=3)


# hostile F5: the tables do what a loop over the bytes did, which took 30 times a request for 8 kB.
@given(st.lists(CODED | PLAIN))
def test_tables_recode_a_path_as_a_loop_over_its_bytes_does(parts):
    raw = b"".join(parts)
    try:
        found = recoded(raw)
    except NoNormalForm:
        found = None
    assert found == by_byte(raw)


def by_byte(raw):
    """The definition: character by character. None: refused."""
    decoded, out, at = bytearray(), [], 0
    while at < len(raw):
        coded = raw[at] == 0x25
        if coded and not re.fullmatch(rb"[0-9A-Fa-f]{2}", raw[at + 1 : at + 3]):
            return None
        byte = int(raw[at + 1 : at + 3], 16) if coded else raw[at]
        if byte < 0x20 or byte == 0x7F or (byte == 0x5C and not coded):
            return None
        decoded.append(byte)
        out.append(chr(byte) if byte in (_UNRESERVED if coded else _PCHAR) else f"%{byte:02X}")
        at += 3 if coded else 1
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return None
    return "".join(out)


def cost_of(raw):
    """CPU seconds of a path, the least of some."""

    def once():
        begun = process_time()
        for _ in range(10):
            normal_path(raw)
        return process_time() - begun

    return min(once() for _ in range(9))


@pytest.mark.parametrize("raw", [b"/" + b'"' * 8000, b"/" + b"%20" * 2600, b"/" + b"%c3%a9" * 1300])
# Fails if something is done in Python for each character: about 10 times, before any key is looked at.
def test_a_path_of_8_kb_costs_about_as_much_in_each_spelling(raw):
    assert cost_of(raw) < 7 * cost_of(b"/a/b" * 2000)
