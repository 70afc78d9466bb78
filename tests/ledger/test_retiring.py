import pytest

from sidecar.core.errors import SidecarError
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.facts import NOTHING_PROVEN
from sidecar.ledger.retiring import QUIET_US, retirement
from tests.ledger.parquet import BASE_US, checkpoint, event, write
from tests.ledger.test_verify import S, usage

LATER_US = BASE_US + 2 * QUIET_US


def retire(folder, source=S, now_us=LATER_US, **more):
    with open_ledger(folder) as ledger:
        return retirement(ledger.engine, source, now_us, NOTHING_PROVEN, **more)


@pytest.fixture
def dead(tmp_path):
    """A source that ends without a word: number 3 is lost, and exchanges were open."""
    last = checkpoint(S, 5, BASE_US, {}, denials=7, open_exchanges=2, backlog_bytes=900)
    write(tmp_path, [usage(1), usage(2), usage(4), last])
    write(tmp_path, [event("denial", f"{S}/denials", 1)], topic="usage.denials")
    return tmp_path


def test_what_may_be_missing_is_said_before_a_source_is_given_up(dead):
    # Fails if the last checkpoint is not read, or the denials are forgotten.
    given_up = retire(dead)
    assert given_up.highest == {"records": 5, "denials": 1}
    assert given_up.may_be_missing == [
        "numbers 3 to 3",
        "all after number 5",
        "denials after number 1, up to 7 at least",
        "2 exchanges that the last checkpoint says were open",
        "900 bytes that the last checkpoint says were on its disk",
    ]
    state, audit = given_up.statements("burned", "ann", "0.1.0")
    assert (state.state, state.about, state.highest, state.actor) == ("retired", S, given_up.highest, "ann")
    assert (audit.action, audit.target, audit.reason) == ("ledger.retire", f"source/{S}", "burned")


def test_a_source_that_still_records_is_not_retired(dead):
    with pytest.raises(SidecarError, match="so it is alive: stop it"):
        retire(dead, now_us=BASE_US + QUIET_US - 1)
    assert retire(dead, now_us=BASE_US, force=True).source == S
    assert retire(dead, now_us=BASE_US + QUIET_US).source == S


def test_a_source_is_retired_once(dead):
    assert not retire(dead).is_recorded
    write(dead, [event("source", "c", 1, {"state": "retired", "about": S})], part=1)
    assert retire(dead).is_recorded


def test_a_source_that_is_only_named_can_be_retired_and_one_that_is_not_cannot(dead):
    write(dead, [event("source", "n", 1, {"state": "started", "about": "n", "predecessor": "before"})], part=1)
    assert retire(dead, "before").may_be_missing[-1] == "exchanges that were open: no checkpoint says how many"
    with pytest.raises(SidecarError, match="no record of it is here, and none names it"):
        retire(dead, "nobody")
    with pytest.raises(SidecarError, match="name the source itself"):
        retire(dead, f"{S}/denials")
