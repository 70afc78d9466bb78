"""What every backend of `Alerts` does. A backend's test gives the fixtures `clock` and `alerts`."""

from dataclasses import replace

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.edge.memory.alerts import AGAIN_US

ANN = Identity("k_ann", "app-ann", "cust-ann", "free")
BOB = Identity("k_bob", "app-bob", "cust-bob", "free")
MONTHLY = Limit("monthly", "quota", 10_000, calendar="month", scope="customer", alerts=(50, 80, 100))
MINUTE = Limit("minute", "window", 10, period_us=60_000_000, alerts=(90,))
QUIET = Limit("quiet", "quota", 10, calendar="month")
MONTH_US = 31 * 86_400_000_000


def decision(clock, used, limit=MONTHLY, who=ANN, mode="exact"):
    """A decision after which `used` units of `limit` are used, with a limit beside it that has no alerts."""
    checks = checks_for((QUIET, limit), (1, 1), who, clock.now_us())
    return Decision(checks, clock.now_us(), (0, limit.amount - used), (0, 0), mode=mode)


def look(alerts, *decisions):
    """The percents that are handed over; nothing is written down."""
    found = []
    for each in decisions:
        alerts.evaluate(each, found.append)
    return [alert.percent for alert in found]


def tell(alerts, *decisions):
    """The percents that are handed over, each written down at once."""
    found = []

    def write(alert):
        found.append(alert.percent)
        alerts.wrote(alert)

    for each in decisions:
        alerts.evaluate(each, write)
    return found


def pass_a_minute(clock, alerts):
    clock.turn(AGAIN_US)
    alerts.tick()


class AlertsSuite:
    def test_each_threshold_is_told_once_as_it_is_passed(self, clock, alerts):
        # Mutations: `<` for `<=` in left_at's use; nothing is remembered.
        told = [tell(alerts, decision(clock, used)) for used in (4_999, 5_000, 5_001, 7_999, 8_000, 9_999, 10_000)]
        assert told == [[], [50], [], [], [80], [], [100]]

    def test_whoever_comes_late_is_told_all_that_was_passed(self, clock, alerts):
        assert tell(alerts, decision(clock, 8_500), decision(clock, 8_501)) == [50, 80]

    def test_a_denied_request_tells_too(self, clock, alerts):
        said = decision(clock, 10_000)
        said.allowed, said.violated = False, 1
        assert tell(alerts, said) == [50, 80, 100]

    def test_past_the_limit_is_past_every_threshold(self, clock, alerts):
        assert tell(alerts, decision(clock, 25_000), decision(clock, 25_001)) == [50, 80, 100]

    def test_a_figure_that_goes_back_tells_nothing_again(self, clock, alerts):
        # An estimate passed the threshold, its settle went below, and the next passes it again.
        assert tell(alerts, *(decision(clock, used) for used in (5_000, 4_000, 5_000))) == [50]

    def test_the_next_period_tells_anew(self, clock, alerts):
        # Mutation: the memory or the claim is by the limit and not by its window.
        assert tell(alerts, decision(clock, 5_000)) == [50]
        clock.turn(MONTH_US)
        assert tell(alerts, decision(clock, 4_000), decision(clock, 5_000)) == [50]

    def test_each_customer_and_each_limit_is_told_apart(self, clock, alerts):
        others = [decision(clock, 5_000, who=BOB), decision(clock, 9, MINUTE), decision(clock, 9, MINUTE, who=BOB)]
        assert tell(alerts, decision(clock, 5_000), *others) == [50, 50, 90, 90]

    def test_a_limit_by_key_is_told_for_each_key(self, clock, alerts):
        by_key = replace(MONTHLY, scope="key")
        other_key = Identity("k_two", "app-ann", "cust-ann", "free")
        assert tell(alerts, decision(clock, 5_000, by_key), decision(clock, 5_000, by_key, other_key)) == [50, 50]

    def test_what_is_not_written_is_handed_over_again_after_a_minute(self, clock, alerts):
        # Its journal failed, say. Mutations: handed over is taken for told; it is handed over at once again.
        said = decision(clock, 5_000)
        assert look(alerts, said, said) == [50]
        clock.turn(AGAIN_US - 1)
        alerts.tick()
        assert look(alerts, said) == []
        clock.turn(1)
        alerts.tick()
        assert tell(alerts, said, said) == [50]
        pass_a_minute(clock, alerts)
        assert tell(alerts, said) == []

    def test_a_worker_that_decides_alone_tells_nothing(self, clock, alerts):
        # It knows its own share and not what is used.
        assert tell(alerts, decision(clock, 9_000, mode="degraded"), decision(clock, 9_000, mode="local")) == []
        assert tell(alerts, decision(clock, 9_000, mode="leased")) == [50, 80]

    def test_an_edit_of_the_amount_tells_only_what_was_not_told(self, clock, alerts):
        # Mutation: thresholds are worked out once per counter.
        assert tell(alerts, decision(clock, 8_000)) == [50, 80]
        raised = replace(MONTHLY, amount=20_000)
        assert tell(alerts, decision(clock, 8_001, raised), decision(clock, 16_000, raised)) == []
        assert tell(alerts, decision(clock, 20_000, raised)) == [100]

    def test_an_edit_of_the_amount_moves_what_is_still_to_be_told(self, clock, alerts):
        # A seat more, say. Mutation: only new percents are felt.
        assert tell(alerts, decision(clock, 5_000)) == [50]
        raised = replace(MONTHLY, amount=20_000)
        assert tell(alerts, decision(clock, 15_999, raised), decision(clock, 16_000, raised)) == [80]

    def test_an_edit_of_the_percents_is_felt(self, clock, alerts):
        assert tell(alerts, decision(clock, 8_000)) == [50, 80]
        more = replace(MONTHLY, alerts=(10, 50, 75))
        assert tell(alerts, decision(clock, 8_000, more)) == [10, 75]

    def test_a_balance_s_alerts_are_not_told_by_a_window_s_rule(self, clock, alerts):
        credit = Limit("credit", "balance", 0, scope="customer", unit="usd", alerts=(50,))
        assert tell(alerts, decision(clock, 0, credit)) == []
