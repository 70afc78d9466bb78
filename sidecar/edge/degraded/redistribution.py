"""Divides the used shares of a node's workers among the workers of a start with another number of workers.

The used units of all old workers are added up and divided evenly, rounded up, so that the new shares are used to the
same part as the old ones. Debts stay with their worker; those of removed workers go to the first one.

    a quota of 100 on one node. 2 workers have shares of 50, of which 20 and 30 are used: 50 in all.
    4 workers start, with shares of 25: each begins with 13 used (50 / 4, rounded up).

All new files are written to a folder. The commit is its rename to a name that ends in the number of workers. Before it
nothing has changed. After it, the next start does what this one did not finish (delete the files of removed workers,
move the new files to their places); each of these steps can be repeated.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

from sidecar.core.errors import SidecarError
from sidecar.edge.degraded.ledger import Ledger, outage_file, outage_files
from sidecar.edge.degraded.outage import Local, Outage, read, set_aside
from sidecar.edge.files import sync_folder

_DRAFT: Final = "outage.new"
_COMMITTED: Final = "outage.next.{}"
log = logging.getLogger("sidecar.degraded")


def redistribute(journal: Path, workers: int, total_workers: int, now_us: int) -> None:
    """Call it before the workers start. `total_workers`: the workers of all nodes, among which limits are divided.

    If the new files cannot be written, nothing changes. Raises SidecarError if committed files cannot be moved.
    """
    shutil.rmtree(journal / _DRAFT, ignore_errors=True)  # of a start that was killed before its commit
    _finish(journal)
    files = outage_files(journal)
    outages = {index: outage for index, path in files.items() if (outage := read(path)) is not None}
    if all(index < workers and _is_of(each, workers, total_workers) for index, each in outages.items()):
        return
    for index, each in outages.items():
        if each.damage:
            set_aside(files[index], each.damage)
            each.doubt(now_us)
            log.error(
                "outage file %s: %d debts may have reached Redis and are not sent again: counters may be too low",
                *(files[index], len(each.doubtful)),
            )
    local = _divided(list(outages.values()), workers, total_workers, now_us)
    leaks_us: dict[str, int] = {}
    for each in outages.values():
        for key, at_us in each.leaks_us.items():
            part_us = _stretched(at_us - now_us, each, workers, total_workers)
            leaks_us[key] = leaks_us.get(key, now_us) + part_us
    new = [Outage(workers, total_workers) for _ in range(workers)]
    for index, each in sorted(outages.items()):
        owner = new[index if index < workers else 0]
        for debt in (*each.debts.values(), *each.sums.values()):
            debt.leaks_us = [
                at_us and now_us + (at_us - now_us) * total_workers // each.total_workers for at_us in debt.leaks_us
            ]
        owner.debts.update(each.debts)
        for debt in each.sums.values():
            owner.add_up(debt.checks, debt.leaks_us, len(owner.sums) + len(debt.checks.keys))
    for owner in new:
        owner.local, owner.leaks_us = dict(local), dict(leaks_us)
        owner.unknown_us = max(each.unknown_us for each in outages.values())
        owner.is_lent_unknown = any(each.is_lent_unknown for each in outages.values())
    new[0].damaged = sum(each.damaged for each in outages.values())
    try:
        _commit(journal, new)
    except OSError as error:
        log.warning(
            "outage files in %s: cannot be divided among %d workers (%s): each worker starts from its own file, if any",
            journal,
            workers,
            error,
        )
        shutil.rmtree(journal / _DRAFT, ignore_errors=True)
        return
    _finish(journal)


def _is_of(outage: Outage, workers: int, total_workers: int) -> bool:
    """Whether its worker continues from it unchanged. A damaged file is left to the worker."""
    return bool(outage.damage) or (outage.workers, outage.total_workers) == (workers, total_workers)


def _commit(journal: Path, outages: list[Outage]) -> None:
    draft = journal / _DRAFT
    draft.mkdir(0o750)
    for index, outage in enumerate(outages):
        ledger = Ledger(outage_file(draft, index), outage.workers, outage.total_workers)
        ledger.outage = outage
        ledger.rewrite(outage.debts, outage.sums)
    draft.replace(journal / _COMMITTED.format(len(outages)))


def _finish(journal: Path) -> None:
    """Replace the old files by the committed ones."""
    for folder in journal.glob(_COMMITTED.format("*")):
        workers = int(folder.name.rpartition(".")[2])
        try:
            sync_folder(journal)
            for index, path in outage_files(journal).items():
                if index >= workers:
                    path.unlink()
            for path in outage_files(folder).values():
                path.replace(journal / path.name)
            sync_folder(journal)
            folder.rmdir()
        except OSError as error:
            raise SidecarError(
                f"journal.dir: the outage files in {folder} cannot be moved to {journal}: {error.strerror}; "
                "start again when it can be written"
            ) from None


def _divided(outages: list[Outage], workers: int, total_workers: int, now_us: int) -> dict[str, Local]:
    sums: dict[str, tuple[str, Any, int]] = {}
    for each in outages:
        each.drop(now_us)
        for key, (kind, value, expire_us) in each.local.items():
            units = _stretched(value[0] - now_us, each, workers, total_workers) if kind == "rate" else value
            _, known, known_us = sums.get(key, (kind, 0, 0))
            sums[key] = kind, known + units, max(known_us, expire_us)
    return {
        key: (kind, [now_us + units, 0] if kind == "rate" else -(-units // workers), expire_us)
        for key, (kind, units, expire_us) in sums.items()
    }


def _stretched(backlog_us: int, outage: Outage, workers: int, total_workers: int) -> int:
    """A new worker's part of a backlog, which leaks at the new worker's part of the rate."""
    return -(-max(0, backlog_us) * total_workers // (outage.total_workers * workers))
