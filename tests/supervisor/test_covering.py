from sidecar.supervisor.children import ChildStatus
from sidecar.supervisor.covering import Cover


class Process:
    """A worker's process as the supervisor knows it, with what it was told."""

    def __init__(self):
        self.status = ChildStatus()
        self.status.on_message({"ready": "127.0.0.1:1"})
        self.told = []

    def send(self, message):
        self.told.append((message["do"], message["fds"], message["on"]))


def test_a_worker_that_does_not_accept_is_covered_until_it_does():
    cover, one, two = Cover(), Process(), Process()
    cover.update([((5,), one), ((6,), two)])
    assert one.told == two.told == []
    cover.update([((5,), one), ((6,), None)])
    cover.update([((5,), one), ((6,), None)])
    assert one.told == [("cover", [6], True)]
    again = Process()
    again.status.closed = True
    cover.update([((5,), one), ((6,), again)])
    assert len(one.told) == 1, "it starts, and does not accept yet"
    again.status.on_message({"ready": "127.0.0.1:1"})
    cover.update([((5,), one), ((6,), again)])
    assert one.told[1:] == [("cover", [6], False)]
    assert again.told == []


def test_who_covers_is_followed_by_another_where_it_goes():
    # Fails if a helper that is gone still counts.
    cover, one, two = Cover(), Process(), Process()
    cover.update([((5,), None), ((6,), one), ((7,), two)])
    assert one.told == [("cover", [5], True)]
    cover.update([((5,), None), ((6,), None), ((7,), two)])
    assert sorted(two.told) == [("cover", [5], True), ("cover", [6], True)]


def test_a_worker_that_is_stuck_or_drains_is_covered_and_one_alone_is_not():
    for change in ({"closed": "draining"}, None):
        cover, one, two = Cover(), Process(), Process()
        if change:
            two.status.on_message(change)
        else:
            two.status.missed = 2
        cover.update([((5,), one), ((6,), two)])
        assert one.told == [("cover", [6], True)]
        cover.update([((5,), None), ((6,), two)])
        assert two.told == []
