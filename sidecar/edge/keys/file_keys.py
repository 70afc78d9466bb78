"""API keys in a YAML file: read strictly, swapped in as a whole, edited entry by entry.

A wrong file changes nothing. An error names file, line and field, but no value: a hash or a credential in the wrong
place must not get into a log. An edit leaves all other text as it is, and is validated before it replaces the file.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.core.errors import Fault, PolicyError, unreadable
from sidecar.core.identity import Identity, KeyRecord
from sidecar.edge.keys.key_document import KeyDocument
from sidecar.ports import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.core.errors import StoreError
    from sidecar.ports import Clock


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

    def was_known(self, digest: bytes) -> bool:
        """Whether the file has the key."""
        return self.known(digest) is not None

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
        return KeyDocument(str(self._path), self._read()).records

    def put(self, *records: KeyRecord) -> None:
        """Replace the keys with the same ids, or append new ones, in one atomic rename.

        A missing file is created, readable by its owner only. An existing file keeps its owner and mode, since the
        sidecar may run as another user. PolicyError: the file is wrong, or would be, or cannot be written.
        """
        try:
            with self._locked():
                text = self._read() if self._path.exists() else ""
                text = KeyDocument(str(self._path), text).with_records(records)
                KeyDocument(str(self._path), text)
                self._replace(text)
        except OSError as error:
            raise PolicyError([Fault(str(self._path), 0, "", f"cannot be written: {error.strerror}")]) from None

    def _read(self) -> str:
        try:
            return self._path.read_text("utf-8")
        except OSError as error:
            raise PolicyError([Fault(str(self._path), 0, "", unreadable(error))]) from None
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
