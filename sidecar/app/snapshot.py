"""What the children read of policies and keys: the last that were found right, never the files as edited.

So a wrong edit changes nothing even where a worker dies and starts again after it, and all workers hold the same that
was validated. Of the policies it is their draft, so that no worker needs what reads and judges documents. It stands
with a copy of the keys in one folder behind one link, which is swapped in a single rename.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.core.errors import Fault, PolicyError
from sidecar.core.policy import Policy
from sidecar.core.usage import Draft

if TYPE_CHECKING:  # a child has no models of settings in memory
    from sidecar.config.settings import Settings

    Load = Callable[[Settings], Draft]

PREFIX = ".policies-"
DRAFT = "draft"


def policy_of(settings: Settings) -> Policy:
    """The policy that a snapshot's settings name."""
    # The folder is our parent's, under a name that is made up at its start, and nobody else may enter it.
    draft = pickle.loads(settings.policies.read_bytes())  # noqa: S301 - see above
    assert isinstance(draft, Draft)  # noqa: S101 - narrows what pickle cannot
    return draft.policy()


class Snapshot:
    """Kept under `settings.journal.dir`. `settings` are the children's: the same, with paths into what is kept."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self._given = settings
        self._load = load
        settings.journal.dir.mkdir(parents=True, exist_ok=True)
        for left in settings.journal.dir.glob(f"{PREFIX}*"):  # of a supervisor that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=settings.journal.dir))  # mode 0700
        self._taken = 0
        self.settings = self._pointed("current").model_copy(update={"policies": self._folder / "current" / DRAFT})

    def take(self) -> str:
        """Copy, validate the copies, put them into force; the version. PolicyError names the original files."""
        self._taken += 1
        name = f"take-{self._taken}"
        pointed = self._pointed(name)
        try:
            self._copy(self._given.policies, pointed.policies)
            if self._given.keys.file is not None and pointed.keys.file is not None:
                self._copy(self._given.keys.file, pointed.keys.file)
            draft = self._load(pointed)
            self._keep(draft, self._folder / name / DRAFT)
        except PolicyError as error:
            shutil.rmtree(self._folder / name, ignore_errors=True)
            raise PolicyError([self._original(fault, pointed) for fault in error.faults]) from None
        link = self._folder / "next"
        link.symlink_to(name)
        link.replace(self._folder / "current")
        shutil.rmtree(self._folder / f"take-{self._taken - 2}", ignore_errors=True)  # nobody is still reading that one
        return draft.version

    def drop(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _pointed(self, name: str) -> Settings:
        given, base = self._given, self._folder / name
        keys = given.keys
        if keys.file is not None:
            keys = keys.model_copy(update={"file": base / "keys" / keys.file.name})
        return given.model_copy(update={"policies": base / "policies" / given.policies.name, "keys": keys})

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
            raise PolicyError([Fault(str(source), 0, "", f"cannot be read: {error.strerror}")]) from None

    @staticmethod
    def _keep(draft: Draft, path: Path) -> None:
        try:
            path.write_bytes(pickle.dumps(draft))
        except OSError as error:
            raise PolicyError([Fault(str(path), 0, "", f"cannot be written: {error.strerror}")]) from None

    def _original(self, fault: Fault, pointed: Settings) -> Fault:
        pairs = [(pointed.policies, self._given.policies), (pointed.keys.file, self._given.keys.file)]
        file, what = fault.file, fault.what
        for copied, given in pairs:
            file, what = file.replace(str(copied), str(given)), what.replace(str(copied), str(given))
        return fault._replace(file=file, what=what)
