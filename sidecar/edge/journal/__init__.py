"""The durable log of one worker. `log` is its face; below are `writer`, `segments`, `folder` and `recovery`.

`orphans` recovers the journal of a worker that no longer exists.
"""

from sidecar.edge.journal.denial_budget import DenialOptions
from sidecar.edge.journal.folder import Disk
from sidecar.edge.journal.log import Here, Journal, JournalOptions, Report
from sidecar.edge.journal.orphans import Orphan, recover, take_unsettled
from sidecar.edge.journal.segments import Figures
from sidecar.edge.journal.settled import Ended

__all__ = [
    "DenialOptions", "Disk", "Ended", "Figures", "Here", "Journal", "JournalOptions", "Orphan", "Report", "recover",
    "take_unsettled",
]  # fmt: skip
