"""Records a correction or a void of an earlier record, once.

The history is read while no other command of this node can record, so two commands cannot change the same record by
what neither has seen of the other. Commands on two nodes can: a void then takes back what its node had seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sidecar.core.errors import SidecarError
from sidecar.core.instants import us_of
from sidecar.core.record.changes import Change, History
from sidecar.edge.journal.command_source import CommandSource, PendingRecord
from sidecar.ports import Originals


class Recorded(NamedTuple):
    """A change, the history before it, and the source that it was recorded in; "": it had been recorded before."""

    change: Change
    history: History
    source: str

    @property
    def earlier_us(self) -> int:
        """When it was recorded before, in µs since 1970; 0: it was not."""
        id_ = self.change.id.decode()
        return next((us_of(each["time"]) for each in self.history.changes if each["id"] == id_), 0)


async def record_change(
    commands: CommandSource, originals: Originals, id_: str, make: Callable[[History], Change], version: str
) -> Recorded:
    """Record what `make` makes of the history of the record `id_`, unless that is recorded already.

    SidecarError: there is no such record, it cannot be changed so, or changes of it may not have been read. SinkError:
    it cannot be recorded.
    """
    with commands:
        history = await originals.find(id_)
        unread = originals.unread(id_)
        if history is None:
            raise SidecarError(
                f"no record has the id {id_}: `sidecar records find --id {id_}` searches denials too; "
                f"name another file with --file{unread and f'. {unread}'}"
            )
        change = make(history)
        if change.is_recorded:
            return Recorded(change, history, "")
        if unread:
            raise SidecarError(
                f"nothing was recorded: earlier changes of {id_} may be in files that were not read, and could be "
                f"given back twice. {unread}; --file names a copy that is elsewhere"
            )
        pending = PendingRecord(change.id, change.customer, change.render)
        return Recorded(change, history, commands.write([pending], version))
