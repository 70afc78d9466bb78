"""Chooses the folder that holds the newest state of a node without Redis, and removes or sets aside the others.

A worker uses a spare folder ("0.1" beside "0") while another one finishes in its own. A state is as new as the epoch
that it was saved in. Nobody needs a state that is older than the newest: it may be damaged.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from sidecar.core.record.frame import Position, segment_of
from sidecar.edge.memory.state_file import ASIDE, AllDamagedError, check_slices, holds_state, is_kept, set_aside

WORKER: Final = "0"  # the folder of the one worker that a node without Redis has
_UNKNOWN: Final = 1 << 100  # above every epoch
log = logging.getLogger("sidecar.state")


def newest(directory: Path) -> Path:
    """The folder under `directory` that holds the newest state; the worker's folder if no folder holds one.

    StateError: no file is whole in a folder where the worker may have begun after the newest state, or a newer version
    wrote one. SinkError: a file cannot be read.
    """
    own, *others = _folders(directory)
    dated = _dated(directory)[0] if others else []
    return max(dated)[1] if dated else own


def check_states(directory: Path) -> None:
    """Raise as `newest` does; of each state, all slices but the first are held against their checksums alone."""
    for error in _dated(directory)[1]:
        log.error("%s. Not needed: a newer state is in another folder", error)


def was_embedded(directory: Path) -> bool:
    """Whether the last start on the journal `directory` was without Redis."""
    return any(is_kept(folder) for folder in _folders(directory))


def leave_states(directory: Path) -> None:
    """The counters are on Redis now: set aside what was kept without it, so that a return begins with empty ones."""
    for folder in _folders(directory):
        set_aside(folder)
    log.warning(
        "%s: counters and wallets are on Redis from now on; those of this node are set aside as state%s",
        *(directory, ASIDE),
    )


def _folders(directory: Path) -> list[Path]:
    """The folder of the worker, then those beside it that hold a state."""
    return [directory / WORKER, *filter(holds_state, directory.glob(f"{WORKER}.*"))]


def _dated(directory: Path) -> tuple[list[tuple[Position, Path]], list[AllDamagedError]]:
    """The folders with a state, with how new it is; and what is wrong with older ones."""
    dated, damaged = list[tuple[Position, Path]](), list[tuple[Path, AllDamagedError]]()
    for path in _folders(directory):
        try:
            first = check_slices(path)
        except AllDamagedError as error:
            damaged.append((path, error))
        else:
            dated += [(first.written, path)] if first is not None else []
    latest = max(dated)[0].epoch if dated else 0
    for path, fault in damaged:
        if not dated or _last_epoch(path) >= latest:
            raise fault
    return dated, [fault for _, fault in damaged]


def _last_epoch(folder: Path) -> int:
    """The last epoch that was begun in a worker's folder; 0: none."""
    epochs = [segment[0] for path in folder.iterdir() if (segment := segment_of(path.name)) is not None]
    with suppress(FileNotFoundError):
        text = (folder / "epoch").read_text(encoding="ascii", errors="replace").strip()
        epochs.append(int(text) if text.isdecimal() else _UNKNOWN)
    return max(epochs, default=0)
