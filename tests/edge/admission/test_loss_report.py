"""After a loss of the store an operator reads that requests are refused, until when, and what ends it."""

from types import SimpleNamespace

from sidecar.core.policy import Limit
from sidecar.edge.admission.loss_report import LossReport
from sidecar.testing import HandClock

START_US = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z
HOUR_US = 3_600_000_000
WINDOW = Limit("w", "window", 100, period_us=HOUR_US, on_store_loss="deny")


def policy(*limits):
    return SimpleNamespace(plans={"free": SimpleNamespace(limits=limits)}, customers={})


# Fails if a loss that is over, or that no limit refuses for, is told as one.
def test_a_loss_is_told_while_a_limit_refuses_for_it():
    clock = HandClock(START_US)
    report, guarded = LossReport(clock), policy(WINDOW)
    assert report.reason(guarded, START_US) == (
        "redis came back empty at 2026-09-21T14:13:20Z: limits with on_store_loss: deny refuse until "
        "2026-09-21T15:13:20Z at the latest, or until `sidecar counters accept-loss`"
    )
    assert report.denying
    assert (report.reason(guarded, 0), report.denying) == ("", False)
    allowing = policy(Limit("w", "window", 100, period_us=HOUR_US))
    assert (report.reason(allowing, START_US), report.denying) == ("", False)
    clock.turn(HOUR_US)
    assert (report.reason(guarded, START_US), report.denying) == ("", False)


def test_terms_of_a_customer_are_looked_at_too():
    terms = SimpleNamespace(plans={}, customers={"acme": SimpleNamespace(limits=(WINDOW,))})
    assert LossReport(HandClock(START_US)).reason(terms, START_US)
