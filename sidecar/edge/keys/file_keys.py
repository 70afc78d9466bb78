"""API keys in a YAML file: read strictly, swapped in as a whole, edited entry by entry.

A wrong file changes nothing. An error names file, line and field, but no value: a hash or a credential in the wrong
place must not get into a log. An edit leaves all other text as it is, and is validated before it replaces the file.
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sidecar.core.errors import StoreError
    from sidecar.ports import Clock

_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_TEXT, _BOOL, _DATE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
_SHAPE = "expected a key file: `keys:` and a list of `{ id: …, hash: …, customer: …, subject: …, plan: … }`"


class FileKeys(Keys):
    """The keys of one file, in memory. Implements `ports.Keys`; answers immediately.

    The constructor and `reload` raise a PolicyError with all faults of the file. A failed `reload` changes nothing.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = KeyFile(path)
        self._clock = clock
        self._known: dict[bytes, Identity] = {}
        self.reload()

    def known(self, digest: bytes) -> Identity | None:
        """The identity; None if the key is unknown, revoked or expired."""
        identity = self._known.get(digest)
        if identity is not None and identity.expires_us and self._clock.now_us() >= identity.expires_us:
            return None
        return identity

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        """The same as `known`. Never a StoreError."""
        done(self.known(digest))

    def reload(self) -> None:
        """Read the file again, and use its keys."""
        self.swap_in(self.read())

    def read(self, path: Path | None = None) -> dict[bytes, Identity]:
        """The current keys of the file, by digest; may be called in a thread. Raises a PolicyError with all faults.

        `path` reads another file instead, whose keys may be swapped in. An unchanged key keeps its Identity object, on
        which other modules cache values.
        """
        fresh = {}
        file = self._file if path is None else KeyFile(path)
        for record in file.records():
            identity, digest = record.identity(), record.digest
            if identity is not None:
                before = self._known.get(digest)
                fresh[digest] = before if before is not None and before.same_as(identity) else identity
        return fresh

    def swap_in(self, keys: dict[bytes, Identity]) -> None:
        """Replace all keys by these."""
        self._known = keys


class KeyFile:
    """The file itself, to list and change its keys."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self) -> list[KeyRecord]:
        """All keys in the order of the file. Raises a PolicyError with all faults."""
        return _Document(str(self._path), self._read()).records

    def put(self, *records: KeyRecord) -> None:
        """Replace the keys with the same ids, or append new ones, in one atomic rename.

        A missing file is created, readable by its owner only. An existing file keeps its owner and mode, since the
        sidecar may run as another user. PolicyError: the file is wrong, or would be, or cannot be written.
        """
        try:
            with self._locked():
                text = self._read() if self._path.exists() else ""
                text = _Document(str(self._path), text).with_records(records)
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
        """Only one process edits at a time. The lock is on the folder, since the file itself is replaced."""
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
    """The text of a key file with the positions of its entries. The constructor raises a PolicyError of all faults."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._faults: list[Fault] = []
        self._list = self._find_list()
        self._items: list[Any] = self._list.value if self._list is not None else []
        records = [self._record(number, node) for number, node in enumerate(self._items)]
        self.records = [record for record in records if record is not None]
        if not self._faults:
            self._refuse_duplicates()
        if self._faults:
            raise PolicyError(self._faults)

    def with_records(self, records: Iterable[KeyRecord]) -> str:
        """The text with each of these keys in place of the one with the same id, or at the end."""
        places = {known.id: node for known, node in zip(self.records, self._items, strict=True)}
        edits: list[tuple[int, int, str]] = []  # start and end of the text to replace
        added = []
        for record in records:
            if (node := places.get(record.id)) is not None:
                edits.append((node.start_mark.index, _end(node), _flow(record)))
            else:
                added.append(_flow(record))
        if added:
            edits.append(self._addition(added))
        parts, end = [], 0
        for start, stop, text in sorted(edits):
            parts += [self._text[end:start], text]
            end = stop
        return "".join([*parts, self._text[end:]])

    def _addition(self, entries: Sequence[str]) -> tuple[int, int, str]:
        """The edit that adds entries after the last one."""
        if self._list is None:
            return len(self._text), len(self._text), "keys:\n" + "".join([f"  - {entry}\n" for entry in entries])
        if not self._items:
            start, end = len(self._text[: self._list.start_mark.index].rstrip()), self._list.end_mark.index
            while self._text[end : end + 1].isspace():
                end += 1
            return start, end, "".join([f"\n  - {entry}" for entry in entries]) + "\n"
        last = _end(self._items[-1])
        if self._list.flow_style:
            return last, last, "".join([f",\n  {entry}" for entry in entries])
        line_end = self._text.find("\n", last)
        end = len(self._text) if line_end < 0 else line_end
        indent = " " * self._list.start_mark.column
        return end, end, "".join([f"\n{indent}- {entry}" for entry in entries]) + "\n" * (line_end < 0)

    def _find_list(self) -> Any:
        """The node of the list of keys; None in an empty file."""
        try:
            root = yaml.compose(self._text, _Loader)
        except yaml.MarkedYAMLError as error:
            # The parser's own message quotes the text around the place, hashes included.
            mark = error.problem_mark or error.context_mark
            self._fault(
                mark.line + 1 if mark else 0, "", "is not YAML from here on; check indents, quotes and brackets"
            )
            return None
        except yaml.YAMLError:
            self._fault(0, "", "is not YAML: it has characters that YAML does not allow")
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
                self._fault(key.start_mark.line + 1, f"keys[{number}]", "has the same field twice")
            values[name] = _value(value)
            lines[name] = key.start_mark.line + 1
        record, faults = read_record(values)
        for name, what in faults:
            field = f".{name}" if name in KeyRecord.__slots__ else ""  # an unknown name may be a misplaced secret
            self._fault(lines.get(name, line), f"keys[{number}]{field}", what)
        return record

    def _refuse_duplicates(self) -> None:
        seen: dict[str, int] = {}
        for number, (record, node) in enumerate(zip(self.records, self._items, strict=True)):
            for field, value in (("id", record.id), ("hash", record.hash)):
                first = seen.setdefault(f"{field} {value}", number)
                if first != number:
                    what = f"{field} is the same as that of keys[{first}]; each key needs its own"
                    self._fault(node.start_mark.line + 1, f"keys[{number}]", what)

    def _fault(self, line: int, where: str, what: str) -> None:
        self._faults.append(Fault(self._file, line, where, what))


def _value(node: Any) -> Any:
    """Text, a boolean, or None for anything else; dates stay text."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == _BOOL:
        return {"true": True, "false": False}.get(node.value.lower())
    return node.value if node.tag in {_TEXT, _DATE} else None


def _end(node: Any) -> int:
    """The end of a node's own text; the end mark of a block collection is after the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _flow(record: KeyRecord) -> str:
    """The entry on one line. JSON's scalars are valid YAML."""
    return "{ " + ", ".join(f"{name}: {json.dumps(value)}" for name, value in record.stored().items()) + " }"
