from sidecar.core.limits import id_us
from sidecar.core.price.stream import StreamPosting
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.views import create_views
from sidecar.ledger.postings import StreamWallet, choose_postings, postings_of, wallets
from tests.edge.ledger.events import event, record_id
from tests.edge.ledger.ledgers import load

ACME = StreamWallet("acme", "acme", "usd", 9)


def posting(number, change, delta, *, cause=None, id_=None, **data):
    fields = {"customer": "acme", "unit": "usd", "digits": 9, "change": change, "delta": delta, "balance": 0, **data}
    return event(number, "posting", fields, causationid=cause, id=id_ or record_id(number))


def read(folder, customer="", wallet=ACME):
    with Engine() as engine:
        create_views(engine, LedgerFolder(folder))
        choose_postings(engine, customer)
        return wallets(engine), list(postings_of(engine, wallet))


def test_the_postings_of_a_wallet_are_in_their_order_each_once_with_their_figures(tmp_path):
    # Fails if the order is that of ids, a copy counts, the time of an exchange is that of its record, or another unit
    # is in the sum.
    grant = posting(1, "grant", 100, grant="g1", priority=2, starts="2026-11-01T00:00:00.000000Z",
                    expires="2027-01-01T00:00:00.500000Z")  # fmt: skip
    settle = posting(3, "settle", -7, cause=record_id(700), id_=record_id(0), charges=[])
    other = posting(4, "grant", 5, grant="g1", unit="credits", digits=2)
    end = posting(5, "expiry", -93, grant="g1")
    load(tmp_path, [end, settle], [grant, other, grant])
    names, postings = read(tmp_path)
    assert names == [StreamWallet("acme", "acme", "credits", 2), ACME]
    assert postings == [
        StreamPosting("grant", 100, id_us(grant["id"].encode()), "g1", 2, 1793491200000000, 1798761600500000),
        StreamPosting("settle", -7, id_us(record_id(700).encode())),
        StreamPosting("expiry", -93, 1795223006005000, "g1"),
    ]
    assert read(tmp_path, "nobody")[0] == []
