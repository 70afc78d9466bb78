"""Read a JSON text as every parser would read it, or detect that parsers would differ.

Meters must read the values that the API acts on. Parsers differ in two ways that a client can exploit: of a repeated
member they take the first, the last or all, and some (Go, .NET, Jackson on request) accept a member name in another
case. `at` therefore returns a value only where all parsers would return the same one, else UNKNOWN.

The cheap check: orjson parses the text, and keeps the last of repeated members. A name that occurs once in the bytes,
in any case, cannot be ambiguous. Where it occurs more than once (in another object, as a value, or twice in one), or
where letters may be hidden in escapes, the text is parsed again by a parser that keeps all members. Example:
`{"max_tokens":1,"MAX_TOKENS":5000}` has "max_tokens" twice in its lower-case bytes, the second parser sees both in one
object, and `at(("max_tokens",))` is UNKNOWN; `{"a":{"n":1},"n":2}` is parsed twice as well, and `at(("n",))` is 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

MISSING: Final = object()  # no value at that path, or an empty text
UNKNOWN: Final = object()  # the text is incomplete or not JSON, or parsers differ

MAX_TWINS: Final = 1_000  # objects with members that fold alike; a text of more of them is not read

Path = Sequence[str]
_UNREAD: Final = object()
_PLAIN: Final = re.compile(r"[a-z0-9_.: -]*")  # names that texts contain unescaped, except for _HIDDEN
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
# An escape of a character that a name can have; `\\/`, and `<`, `>`, `&`, which encoders for HTML escape, are common.
_HIDDEN: Final = re.compile(rb"\\u00(?!26|3[ceCE])[2-7]|\\u013[01]|\\u017[fF]|\\u212[aA]")
# Letters outside of ASCII that some take for the ASCII letters i, s, k: dotless i, i with a dot, long s, Kelvin.
_ALIKE: Final = (b"\xc4\xb0", b"\xc4\xb1", b"\xc5\xbf", b"\xe2\x84\xaa")
_FOLDED: Final = str.maketrans({"\u0131": "i", "\u017f": "s", "\u0307": ""})


def parse(body: bytes) -> Any:
    """The value of a JSON text. ValueError: it is not JSON.

    Texts that the strict parser refuses (a lone surrogate, NaN, a byte order mark, UTF-16) go to Python's own parser,
    because an upstream may accept them, and accepted requests must be metered.
    """
    try:
        return orjson.loads(body)
    except ValueError:
        return _leniently(body)


def fold(name: str) -> str:
    """The key by which case-insensitive parsers compare names."""
    return name.lower().translate(_FOLDED) if not name.isascii() else name.lower()


class Members(NamedTuple):
    """Members to look up in several objects of a document: by the object's path, the names by their folded form.

    An object follows those that contain it, whose names include its own. `quoted` is each name as in the bytes.
    """

    objects: Mapping[tuple[str, ...], Mapping[str, str]]
    quoted: Mapping[str, bytes]


def members_of(objects: Mapping[tuple[str, ...], Iterable[str]]) -> Members:
    """The members of these names in the objects at these paths. Names are letters, digits and `_`."""
    quoted = {name: b'"%b"' % name.encode() for each in objects.values() for name in each}
    return Members({path: {fold(name): name for name in each} for path, each in objects.items()}, quoted)


class Twins(dict[str, Any]):
    """An object in which members have names that fold alike; `pairs` are all of its members. Created by `_Objects`."""

    __slots__ = ("pairs",)

    pairs: list[tuple[str, Any]]


class JsonText:
    """One JSON text, parsed on first access; `body` None: incomplete, or not decoded.

    It holds the bytes, and parsed values of up to some thirty times their size; `rest` drops the values.
    """

    __slots__ = ("_all", "_lower", "_odd", "_value", "body")

    def __init__(self, body: bytes | None) -> None:
        self.body = body
        self._odd = False
        self._value = self._all = _UNREAD
        self._lower = b""

    def rest(self) -> None:
        """Drop the parsed values until the next access."""
        self._value = self._all = _UNREAD
        self._lower = b""

    @property
    def value(self) -> Any:
        """The document, with the last of repeated members; MISSING for an empty text, or UNKNOWN."""
        if self._value is _UNREAD:
            self._value = self._parsed()
        return self._value

    def at(self, path: Path) -> Any:
        """The value at a path of names and indices; UNKNOWN where parsers would differ."""
        doubtful = any(map(self._is_doubtful, path))
        return _walk(self.everything if doubtful else self.value, path)

    def loosely_at(self, path: Path) -> Any:
        """The same by exact names, the last of repeated ones: for texts whose writer gains nothing from ambiguity."""
        value = self.value
        for step in path if value is not UNKNOWN else ():
            value = value.get(step, MISSING) if isinstance(value, dict) else _item(value, step)
        return value

    def is_certain(self, name: str, times: int) -> bool:
        """Whether no more than `times` members of the text can have names that fold to `name`."""
        return not self._is_doubtful(name, times)

    def differs(self, members: Members) -> bool:
        """Whether parsers would differ at one of these members."""
        names = _present(self.value, members)
        if names is None:
            return True
        if not self._odd:
            body = self.body or b""
            for name in names:
                if body.count(members.quoted[name]) > names.count(name):
                    break  # in another object, as a value, or twice in one
            else:
                return False
        return _present(self.everything, members) is None

    @property
    def everything(self) -> Any:
        """The document, in which objects with members that fold alike are `Twins`."""
        if self._all is _UNREAD:
            self._all = self.value
            if isinstance(self._all, dict | list):
                try:
                    self._all = _leniently(self.body or b"", _Objects().take)
                except ValueError:
                    self._all = UNKNOWN
        return self._all

    def _parsed(self) -> Any:
        body = self.body
        if body is None:
            return UNKNOWN
        if not body:
            return MISSING
        try:
            value = orjson.loads(body)
        except ValueError:
            self._odd = True  # and perhaps in UTF-16
        else:
            self._odd = (b"\\" in body and _HIDDEN.search(body) is not None) or (
                not body.isascii() and any(letter in body for letter in _ALIKE)
            )
            return value
        try:
            return _leniently(body)
        except ValueError:
            return UNKNOWN

    def _is_doubtful(self, name: str, times: int = 1) -> bool:
        if self.value is UNKNOWN or self.value is MISSING:
            return False
        name = fold(name)
        if self._odd or not _PLAIN.fullmatch(name):
            return True
        self._lower = self._lower or (self.body or b"").lower()
        return self._lower.count(b'"%b"' % name.encode()) > times


def every(container: Any, name: str) -> list[Any]:
    """All values of an object whose names fold to `name`. The object is from `JsonText.everything` or `value`."""
    return [value for key, value in _pairs(container) if fold(key) == name]


def _leniently(body: bytes, pairs: Any = None) -> Any:
    """By Python's own parser, which keeps all digits and accepts more. ValueError: not JSON, or nested too deep."""
    try:
        return json.loads(body, object_pairs_hook=pairs)
    except RecursionError as fault:
        raise ValueError("nested too deep") from fault


class _Objects:
    """Creates the objects of one text. `take` is called for each, so it uses built-ins where it can."""

    def __init__(self) -> None:
        self._left = MAX_TWINS

    def take(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > 1:
            names = [name for name, _ in pairs]
            if len(set(map(str.lower, names))) < len(names):
                return self._twins(pairs)
            if not "".join(names).isascii() and len(set(map(fold, names))) < len(names):
                return self._twins(pairs)
        return dict(pairs)

    def _twins(self, pairs: list[tuple[str, Any]]) -> Twins:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {MAX_TWINS} objects with ambiguous names")
        twins = Twins(pairs)
        twins.pairs = pairs
        return twins


def _present(document: Any, members: Members) -> list[str] | None:
    """The members that a document has, once for each object with it; None where parsers would differ on one."""
    if document is UNKNOWN:
        return None
    present: list[str] = []
    for path, names in members.objects.items():
        if path and path[-1] not in present:
            continue
        before = len(present)
        for key, _ in _pairs(_plain_at(document, path)):
            name = names.get(fold(key))
            if name is None:
                continue
            if key != name or name in present[before:]:
                return None
            present.append(name)
    return present


def _plain_at(value: Any, path: Path) -> Any:
    for name in path:  # each is among the names of the object that contains it
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _pairs(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Twins):
        return value.pairs
    return value.items() if isinstance(value, dict) else ()


def _walk(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = _member(value, step)
        elif isinstance(value, list):
            value = _item(value, step)
        elif value is not UNKNOWN:
            return MISSING
    return value


def _member(container: dict[str, Any], name: str) -> Any:
    if type(container) is dict and name in container:
        return container[name]
    folded = fold(name)
    alike: Iterator[tuple[str, Any]] = (pair for pair in _pairs(container) if fold(pair[0]) == folded)
    first, second = next(alike, None), next(alike, None)
    if first is None:
        return MISSING
    return first[1] if second is None and first[0] == name else UNKNOWN


def _item(container: Any, step: str) -> Any:
    if isinstance(container, list) and _INDEX.fullmatch(step) and int(step) < len(container):
        return container[int(step)]
    return MISSING
