"""The durable log of one worker. `log` is its face; below are `writer`, `segments`, `folder` and `recovery`."""

from sidecar.edge.journal.folder import Disk
from sidecar.edge.journal.log import Journal, JournalOptions, Report
from sidecar.edge.journal.segments import SYNC_BOUNDS_US, Figures

__all__ = ["SYNC_BOUNDS_US", "Disk", "Figures", "Journal", "JournalOptions", "Report"]
