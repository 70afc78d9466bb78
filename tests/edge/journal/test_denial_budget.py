from sidecar.core.record import Denied
from sidecar.edge.journal import DenialOptions
from sidecar.edge.journal import denial_budget as module
from sidecar.edge.journal.denial_budget import DenialBudget

ONE = Denied("c-1", "free@1", "monthly", "quota-exceeded", 429)
TWO = ONE._replace(customer="c-2")


def budget(**options):
    return DenialBudget(DenialOptions(**options))


def test_each_second_has_so_many_records_in_all_and_for_one_customer_and_limit():
    # Fails if what is left is not looked at, if it is not refilled, or if all customers share one count.
    denials = budget(per_second=5, per_limit=3)
    assert [denials.admits(ONE) for _ in range(4)] == [True, True, True, False]
    assert [denials.admits(TWO) for _ in range(3)] == [True, True, False]
    denials.tick(0, 1)
    assert denials.admits(ONE)


def test_what_has_no_record_is_counted_by_customer_and_limit_with_its_first_and_last_time():
    denials = budget(summary_seconds=2)
    for now_us in (10, 20, 30):
        denials.count(ONE, now_us)
    denials.count(TWO, 25)
    assert denials.waiting == denials.total == 4
    denials.tick(0, 1)
    assert not denials.is_due()
    denials.tick(0, 1)
    assert denials.is_due()
    assert denials.take() == [(ONE, 3, 10, 30), (TWO, 1, 25, 25)]
    assert (denials.waiting, denials.summarised, denials.total) == (0, 4, 4)
    assert not denials.is_due()
    assert denials.take() == []


def test_more_customers_than_are_kept_are_counted_together():
    # Fails if the number of counts is not bounded: who makes up customers would decide over our memory.
    denials = budget()
    for number in range(module.KEYS_MAX + 10):
        denials.count(ONE._replace(customer=f"c-{number}"), number)
    taken = denials.take()
    assert len(taken) == module.KEYS_MAX + 1
    assert taken[-1].denied == ONE._replace(customer="", plan="")
    assert taken[-1].number == 10
    assert sum(summary.number for summary in taken) == denials.summarised


def test_the_share_is_of_what_is_on_disk_and_comes_back_with_freed_segments():
    # Fails if bytes are not given back when their segment goes, or if summaries have no part that records leave them.
    denials = budget(share_bytes=1_000, summary_seconds=1)
    denials.wrote(700)
    assert denials.admits(ONE)
    denials.tick(1, 1)
    denials.wrote(100)
    assert not denials.admits(ONE)
    denials.count(ONE, 1)
    denials.tick(1, 2)
    assert denials.is_due(), "a fifth is left for summaries"
    denials.wrote(200)
    assert not denials.is_due()
    denials.tick(2, 2)
    assert denials.retained_bytes == 300
    assert denials.admits(ONE)
    assert denials.is_due()
