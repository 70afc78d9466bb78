"""Allow or deny: the one rule for every limit at once, all or none. The Redis scripts are held to it by a test.

`evaluate` prepares the evaluation of each limit, `wallet_charges` works out what a balance is charged, `rule` decides,
and `answer` is the decision; `settled` is what is left after it; `extension` keeps what open exchanges hold.
"""

from sidecar.core.decision.answer import Decision
from sidecar.core.decision.extension import extend
from sidecar.core.decision.rule import MARK_LIFE_US, Write, changes_nothing, reserve, settle
from sidecar.core.decision.settled import settled
from sidecar.core.decision.wallet_charges import Hold
from sidecar.core.limits.concurrency import RETRY_US

__all__ = [
    "MARK_LIFE_US", "RETRY_US", "Decision", "Hold", "Write", "changes_nothing", "extend", "reserve", "settle",
    "settled",
]  # fmt: skip
