"""Decisions while the store does not answer.

`counters` decides from this worker's share of each limit; `share` computes the share. `debts` are charges that the
store does not have yet. `ledger` writes shares and debts to a file, so that they survive a killed worker; `outage`
reads the file. `redistribution` divides the state of all workers of a node among the workers of the next start.
"""

from sidecar.edge.degraded.counters import Degraded
from sidecar.edge.degraded.ledger import Ledger, outage_file
from sidecar.edge.degraded.redistribution import redistribute
from sidecar.edge.degraded.share import over_admission_bound, share_of

__all__ = ["Degraded", "Ledger", "outage_file", "over_admission_bound", "redistribute", "share_of"]
