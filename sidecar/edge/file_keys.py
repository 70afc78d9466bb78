"""API keys in a YAML file: read strictly, swapped in whole, edited entry by entry.

A wrong file changes nothing. A fault names file, line and field, and repeats no value: a hash or a credential put in
the wrong place must not reach a log. An edit keeps all else, and is read back before it replaces the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import Identity, KeyRecord, read_record
from sidecar.ports import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.core.errors import StoreError
    from sidecar.ports import Clock

_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_TEXT, _BOOL, _DATE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
_SHAPE = "a key file is `keys:` and a list of `{ id: …, hash: …, customer: …, subject: …, plan: … }`"


class FileKeys(Keys):
    """The keys of one file, in memory. Is `ports.Keys`; answers at once.

    PolicyError from the constructor and from `reload` carries every fault of the file; after a failed `reload` the keys
    are those of before.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = KeyFile(path)
        self._clock = clock
        self._known: dict[bytes, Identity] = {}
        self.reload()

    def known(self, digest: bytes) -> Identity | None:
        """The identity, or None where the key is unknown, revoked or past its end."""
        identity = self._known.get(digest)
        if identity is not None and identity.expires_us and self._clock.now_us() >= identity.expires_us:
            return None
        return identity

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        """As `known`. Never a StoreError."""
        done(self.known(digest))

    def reload(self) -> None:
        """Read the file again, and put it in force."""
        self.put_in_force(self.read())

    def read(self) -> dict[bytes, Identity]:
        """The keys of the file as it is now, by digest; may be called in a thread. PolicyError: all that is wrong.

        A key that says the same as before keeps its Identity, and all that is cached on it.
        """
        fresh = {}
        for record in self._file.records():
            identity, digest = record.identity(), record.digest
            if identity is not None:
                before = self._known.get(digest)
                fresh[digest] = before if before is not None and before.same_as(identity) else identity
        return fresh

    def put_in_force(self, keys: dict[bytes, Identity]) -> None:
        """Know these, and no others."""
        self._known = keys


class KeyFile:
    """The file itself, for those that list and change keys."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self) -> list[KeyRecord]:
        """All keys in the order of the file. PolicyError: what is wrong with it, with lines."""
        return _Document(str(self._path), self._read()).records

    def put(self, *records: KeyRecord) -> None:
        """Write these keys over those of the same ids, or behind the last, in one atomic rename.

        A file that is not there is begun, readable by its owner only; one that is there keeps its owner and mode, for
        the sidecar may run as another user. PolicyError: the file is wrong, or would be, or cannot be written.
        """
        try:
            with self._locked():
                text = self._read() if self._path.exists() else ""
                for record in records:
                    text = _Document(str(self._path), text).with_record(record)
                _Document(str(self._path), text)
                self._replace(text)
        except OSError as error:
            raise PolicyError([Fault(str(self._path), 0, "", f"cannot be written: {error.strerror}")]) from None

    def _read(self) -> str:
        try:
            return self._path.read_text("utf-8")
        except OSError as error:
            raise PolicyError([Fault(str(self._path), 0, "", f"cannot be read: {error.strerror}")]) from None
        except UnicodeDecodeError:
            raise PolicyError([Fault(str(self._path), 0, "", "is not UTF-8 text")]) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One editor at a time. The lock is on the folder, since the file is replaced under whoever holds it."""
        folder = os.open(self._path.resolve().parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)

    def _replace(self, text: str) -> None:
        target = self._path.resolve()  # a link stays a link
        handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                if target.exists():
                    before = target.stat()
                    os.fchmod(handle, before.st_mode)
                    os.fchown(handle, before.st_uid, before.st_gid)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(target)
        except BaseException:
            Path(draft).unlink()
            raise


class _Document:
    """The text of a key file with the places of its entries. PolicyError from the constructor: all that is wrong."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._faults: list[Fault] = []
        self._list = self._find_list()
        self._items: list[Any] = self._list.value if self._list is not None else []
        found = [self._record(number, node) for number, node in enumerate(self._items)]
        self.records = [record for record in found if record is not None]
        if not self._faults:
            self._refuse_twins()
        if self._faults:
            raise PolicyError(self._faults)

    def with_record(self, record: KeyRecord) -> str:
        """The text with this key in the place of the one with its id, or behind the last."""
        entry = _flow(record)
        if self._list is None:
            return f"{self._text}keys:\n  - {entry}\n"
        places = {known.id: node for known, node in zip(self.records, self._items, strict=True)}
        if (node := places.get(record.id)) is not None:
            return self._text[: node.start_mark.index] + entry + self._text[_end(node) :]
        if not self._items:
            start, end = self._list.start_mark.index, self._list.end_mark.index
            return f"{self._text[:start].rstrip()}\n  - {entry}\n{self._text[end:].lstrip()}"
        last = _end(self._items[-1])
        if self._list.flow_style:
            return f"{self._text[:last]},\n  {entry}{self._text[last:]}"
        line_end = self._text.find("\n", last)
        rest = "" if line_end < 0 else self._text[line_end:]
        head = self._text if line_end < 0 else self._text[:line_end]
        return f"{head}\n{' ' * self._list.start_mark.column}- {entry}{rest or chr(10)}"

    def _find_list(self) -> Any:
        """The node of the list of keys; None in an empty file."""
        try:
            root = yaml.compose(self._text, _Loader)
        except yaml.MarkedYAMLError as error:
            # The parser's own message quotes the text around the place, hashes included.
            mark = error.problem_mark or error.context_mark
            self._fault(
                mark.line + 1 if mark else 0, "", "is not YAML from here on; look at indents, quotes and brackets"
            )
            return None
        except yaml.YAMLError:
            self._fault(0, "", "is not YAML: it holds characters that YAML does not allow")
            return None
        if root is None:
            return None
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        if len(pairs) != 1 or pairs[0][0].value != "keys" or not isinstance(pairs[0][1], yaml.SequenceNode):
            self._fault(root.start_mark.line + 1, "", _SHAPE)
            return None
        return pairs[0][1]

    def _record(self, number: int, node: Any) -> KeyRecord | None:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            self._fault(line, f"keys[{number}]", _SHAPE)
            return None
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in values:
                self._fault(key.start_mark.line + 1, f"keys[{number}]", "says a field twice")
            values[name] = _value(value)
            lines[name] = key.start_mark.line + 1
        record, faults = read_record(values)
        for name, what in faults:
            field = f".{name}" if name in KeyRecord.__slots__ else ""  # another name could be a secret out of place
            self._fault(lines.get(name, line), f"keys[{number}]{field}", what)
        return record

    def _refuse_twins(self) -> None:
        seen: dict[str, int] = {}
        for number, (record, node) in enumerate(zip(self.records, self._items, strict=True)):
            for field, value in (("id", record.id), ("hash", record.hash)):
                first = seen.setdefault(f"{field} {value}", number)
                if first != number:
                    what = f"{field} is that of keys[{first}]; every key has its own"
                    self._fault(node.start_mark.line + 1, f"keys[{number}]", what)

    def _fault(self, line: int, where: str, what: str) -> None:
        self._faults.append(Fault(self._file, line, where, what))


def _value(node: Any) -> Any:
    """Text, a truth value, or None for what is neither; dates stay the text that they are."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == _BOOL:
        return {"true": True, "false": False}.get(node.value.lower())
    return node.value if node.tag in {_TEXT, _DATE} else None


def _end(node: Any) -> int:
    """Where a node's own text ends: the mark of a block collection lies behind the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _flow(record: KeyRecord) -> str:
    """The entry on one line; JSON's scalars are YAML's."""
    return "{ " + ", ".join(f"{name}: {json.dumps(value)}" for name, value in record.stored().items()) + " }"
