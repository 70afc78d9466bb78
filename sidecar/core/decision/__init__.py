"""Allow or deny: the one rule for every limit at once, all or none. The Redis scripts are held to it by a test.

`looks` says what each limit says, `purses` what a balance is charged, `rule` decides, and `answer` is what it decided;
`settled` is what became of that.
"""

from sidecar.core.decision.answer import Decision, shadowed_of
from sidecar.core.decision.looks import RETRY_US
from sidecar.core.decision.purses import Hold
from sidecar.core.decision.rule import MARK_LIFE_US, Write, changes_nothing, reserve, settle
from sidecar.core.decision.settled import settled

__all__ = [
    "MARK_LIFE_US", "RETRY_US", "Decision", "Hold", "Write", "changes_nothing", "reserve", "settle", "settled",
    "shadowed_of",
]  # fmt: skip
