"""A copy of the last valid policies and keys. The child processes read it, never the files that an operator edits.

So an invalid edit changes nothing, even if a worker restarts after it, and all workers have the same validated version.
The policies are copied as their PolicySource, so that workers do not load the code that reads and validates documents.
Each version is a folder `take-N`. The link `current` names the version that children start with, the link `next` the
staged one; a commit renames `next` to `current`.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.core.errors import Fault, PolicyError, SidecarError, unreadable
from sidecar.core.policy import NO_HASHES, Policy
from sidecar.core.usage import PolicySource
from sidecar.edge.files import OwnedError, lock_file
from sidecar.loading.certificates import expiries
from sidecar.loading.header_secrets import read_secrets
from sidecar.loading.plan_labels import remember_labels

if TYPE_CHECKING:  # a child has no models of settings in memory
    from sidecar.config.settings import Settings

    Load = Callable[[Settings, Mapping[str, int]], PolicySource]

PREFIX = ".policies-"
SOURCE = "source"
LOCK = "node.lock"
CURRENT, NEXT = "current", "next"


def policy_of(path: Path) -> Policy:
    """The policy whose source is at `path`, which a snapshot's settings name."""
    # Our parent made the folder, under a random name, and no other user may enter it.
    source = pickle.loads(path.read_bytes())  # noqa: S301 - see above
    assert isinstance(source, PolicySource)  # noqa: S101 - pickle.loads is untyped
    return source.policy()


def staged(path: Path) -> Path:
    """The path of a document while it is staged. `path` is the one that a snapshot's settings name."""
    return Path(*(NEXT if part == CURRENT else part for part in path.parts))


class Snapshot:
    """The copies, in a folder under `settings.journal.dir`. `settings` are the children's, with paths into that folder.

    `load` gets the settings of a copy and the scales of the committed policy (`PolicySource.scales`).

    SidecarError: another node owns the journal's folder.
    """

    def __init__(self, settings: Settings, load: Load) -> None:
        self._original = settings
        self._load = load
        self._lock = _own(settings.journal.dir)
        for stale in settings.journal.dir.glob(f"{PREFIX}*"):  # of a supervisor that was killed
            shutil.rmtree(stale, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=settings.journal.dir))  # mode 0700
        self._scales: dict[str, int] = {}  # of the committed policy
        self._staged_scales: dict[str, int] = {}
        self._staged_hashes = NO_HASHES
        self._taken = self._committed = self._previous = 0  # numbers of versions
        self.pem: dict[str, str] = {}  # certificates, private keys and secrets of headers, staged last; only in memory
        self.expiries: dict[str, int] = {}  # of the committed certificates
        self.settings = self._settings_of(CURRENT).model_copy(update={"policies": self._folder / CURRENT / SOURCE})

    def stage(self) -> str:
        """Copy policies and keys, validate and stage the copies. Returns the policy's version.

        PolicyError names the original files. If any error is raised, nothing is staged.
        """
        self._taken += 1
        name = f"take-{self._taken}"
        copied = self._settings_of(name)
        try:
            self._copy(self._original.policies, copied.policies)
            if self._original.keys.file is not None and copied.keys.file is not None:
                self._copy(self._original.keys.file, copied.keys.file)
            source = self._load(copied, self._scales)
            pem = read_secrets(self._original)
            self._write(source, self._folder / name / SOURCE)
        except PolicyError as error:
            self._remove(self._taken)
            faults = [self._with_original_paths(fault, copied) for fault in error.faults]
            raise PolicyError(self._original.ascribe(faults)) from None
        except BaseException:
            self._remove(self._taken)
            raise
        link = self._folder / NEXT
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        self.pem = pem
        self._staged_scales, self._staged_hashes = source.scales(), source.hashes
        return source.version

    def commit(self) -> None:
        """Make the staged version current, by one rename. OSError: it is not current."""
        remember_labels(self._original.journal.dir, self._staged_hashes)
        committed_expiries = expiries(self._original, self.pem)
        (self._folder / NEXT).replace(self._folder / CURRENT)
        self._remove(self._previous)  # no child is still reading that one
        self._previous, self._committed = self._committed, self._taken
        self._scales = self._staged_scales
        self.expiries = committed_expiries

    def discard(self) -> None:
        """Remove the staged version."""
        (self._folder / NEXT).unlink(missing_ok=True)
        if self._taken != self._committed:
            self._remove(self._taken)

    def drop(self) -> None:
        """Remove all copies, and release the lock on the journal's folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _remove(self, taken: int) -> None:
        shutil.rmtree(self._folder / f"take-{taken}", ignore_errors=True)

    def _settings_of(self, name: str) -> Settings:
        """The settings with the paths of version `name`."""
        original, base = self._original, self._folder / name
        keys = original.keys
        if keys.file is not None:
            keys = keys.model_copy(update={"file": base / "keys" / keys.file.name})
        return original.model_copy(update={"policies": base / "policies" / original.policies.name, "keys": keys})

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"))
            else:
                shutil.copyfile(source, target)
        except shutil.Error as error:
            raise PolicyError(
                [Fault(str(args[0]), 0, "", f"cannot be read: {args[2]}") for args in error.args[0]]
            ) from None
        except OSError as error:
            raise PolicyError([Fault(str(source), 0, "", unreadable(error))]) from None

    @staticmethod
    def _write(source: PolicySource, path: Path) -> None:
        try:
            path.write_bytes(pickle.dumps(source))
        except OSError as error:
            raise PolicyError([Fault(str(path), 0, "", f"cannot be written: {error.strerror}")]) from None

    def _with_original_paths(self, fault: Fault, copied: Settings) -> Fault:
        pairs = [(copied.policies, self._original.policies), (copied.keys.file, self._original.keys.file)]
        file, what = fault.file, fault.what
        for copy, original in pairs:
            file, what = file.replace(str(copy), str(original)), what.replace(str(copy), str(original))
        return fault._replace(file=file, what=what)


def _own(folder: Path) -> int:
    """Lock this journal folder for this node. The lock lasts until the returned descriptor is closed.

    The lock file is never deleted: after an unlink two nodes could lock two files of the same name.
    """
    try:
        return lock_file(folder / LOCK)
    except OwnedError as owner:
        raise SidecarError(
            f"journal.dir: {folder} is used by the node with pid {owner}: stop it, or set another journal.dir"
        ) from None
