"""The content that each plan label had when this node applied it first: a label means one thing for ever.

Records carry labels, and invoices are made by them, so `pro@3` may not say 10 a month today and 20 tomorrow. Only
versions that a policy gives can break that; a version that is left out is a hash of the content. The labels are in a
file beside the journal, one for each node; those of other nodes are on the stream (`sidecar.policy.v1`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from sidecar.core.errors import Fault, PolicyError, unreadable
from sidecar.core.policy import Hashes
from sidecar.edge.files import write_atomic

if TYPE_CHECKING:  # children do not load the code that reads documents
    from sidecar.config.compile import Loaded

FILE: Final = "plan-labels.json"
_SHOWN = 12  # hex digits of a hash in a fault


def known_labels(directory: Path) -> dict[str, str]:
    """SHA-256 in hex of the content of each label that was applied, of the journal `directory`.

    PolicyError: the file cannot be read, or holds something else.
    """
    path = directory / FILE
    try:
        labels = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):  # the latter is a fault of journal.dir, named where it is made
        return {}
    except OSError as error:
        raise PolicyError([Fault(str(path), 0, "", unreadable(error))]) from None
    except ValueError:
        labels = None
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        what = "does not hold the hashes of plan labels: restore it, or remove it: then labels are known from now on"
        raise PolicyError([Fault(str(path), 0, "", what)])
    return labels


def label_faults(loaded: Loaded, directory: Path) -> Iterator[Fault]:
    """A fault for each version of `loaded` whose label was applied with other content. PolicyError: as above."""
    known = known_labels(directory)
    for label, at in loaded.labels.items():
        now, before = loaded.source.hashes.plans[label], known.get(label)
        if before is not None and before != now:
            what = f"{label} was applied with other content (SHA-256 {before[:_SHOWN]}… then, {now[:_SHOWN]}… now)"
            remedy = f"give it a new version; if nobody was billed by it, remove it from {directory / FILE} instead"
            yield at.fault(f"{what}, and a label never changes its content: {remedy}", "version")


def remember_labels(directory: Path, hashes: Hashes) -> None:
    """Add the labels of a policy, before it is applied. OSError, PolicyError: they cannot be written or read."""
    known = known_labels(directory)
    if fresh := {label: hashes.plans[label] for label in hashes.given if label not in known}:
        write_atomic(directory / FILE, orjson.dumps(known | fresh, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
