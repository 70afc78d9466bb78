"""Reports whether limits deny after a loss of the store's data, and until when: for /readyz, metrics and commands."""

from __future__ import annotations

from datetime import UTC, datetime

from sidecar.core.policy import Limit, Policy
from sidecar.edge.admission.loss_guard import denies_until_us, guards
from sidecar.ports import Clock


class LossReport:
    """Call `reason` once a second. The limits of a policy are searched once, and only after a loss."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._policy: Policy | None = None
        self._limits: tuple[Limit, ...] = ()
        self.denying = False

    def reason(self, policy: Policy, lost_us: int) -> str:
        """Why requests are denied since the loss at `lost_us` (0: no loss is known); "" if no limit denies."""
        until_us = denies_until_us(self._limits_of(policy), lost_us) if lost_us else 0
        self.denying = until_us > self._clock.now_us()
        if not self.denying:
            return ""
        return (
            f"redis came back empty at {_time(lost_us)}: limits with on_store_loss: deny refuse until "
            f"{_time(until_us)} at the latest, or until `sidecar counters accept-loss`"
        )

    def _limits_of(self, policy: Policy) -> tuple[Limit, ...]:
        if policy is not self._policy:
            plans = (*policy.plans.values(), *policy.customers.values())
            self._policy = policy
            self._limits = tuple({limit for plan in plans for limit in plan.limits if guards(limit)})
        return self._limits


def _time(us: int) -> str:
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
