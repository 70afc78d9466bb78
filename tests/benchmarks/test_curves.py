"""Curves: points side by side in the same rounds, and a backlog that a reader takes for a journal."""

import socket
import threading

import pytest

from benchmarks.curves import idle
from benchmarks.curves.backlog import Backlog
from benchmarks.curves.catalogue import BY_NAME, Curve
from benchmarks.curves.point import Timing, hot_and_tail, over_keys
from benchmarks.curves.rounds import Measured, from_json, measure_curve
from benchmarks.curves.site import Site, credential
from benchmarks.stage import RunFailed
from sidecar.config.compile import load
from sidecar.core.record.frame import CLOSE, OPEN, Frame
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.reader import JournalReader
from sidecar.edge.journal.recovery import look_back

ID = b"01JD0000000000000000000000"
OPENED = Frame(OPEN, "", 0, ID, b"", b'{"id":"%b","customer":"c"}' % ID)
CLOSED = Frame(
    CLOSE, "records", 1, ID, b"c", b'{"source":"//sidecar/x/1","id":"%b","sequence":"000000000000000001"}' % ID
)


def a_curve(points, unit=1):
    return Curve("x", "x", "things", unit, lambda _folder: points)


def test_each_round_takes_every_point_once_and_begins_with_another() -> None:
    order = []
    points = {x: lambda _timing, x=x: order.append(x) or {"cpu_ns": x * len(order)} for x in (1, 2, 4)}
    measured = measure_curve(a_curve(points), Timing(), 2, lambda _: None)
    assert order == [1, 2, 4, 2, 4, 1]
    # Mutation: dividing medians gives the same number for both rounds.
    assert measured.ratios(4) == [4 * 3 / 1, 4 * 5 / 6]


def test_a_point_that_fails_is_named_and_the_others_stand() -> None:
    def fails(_timing):
        raise RunFailed("no descriptors")

    measured = measure_curve(a_curve({1: lambda _timing: {"cpu_ns": 7}, 10: fails}), Timing(), 2, lambda _: None)
    assert measured.left_out == {"10": "no descriptors"}
    assert measured.values(1, "cpu_ns") == [7, 7]


def test_a_curve_that_cannot_be_prepared_has_its_reason() -> None:
    def no_room(_folder):
        raise RunFailed("the disk is full")

    assert measure_curve(Curve("x", "x", "x", 1, no_room), Timing(), 1, lambda _: None).left_out == {
        "": "the disk is full"
    }


def test_the_ends_of_a_curve_are_its_first_and_its_last_point() -> None:
    points = {x: lambda _timing: {"cpu_ns": 1} for x in (1, 2, 4, 8)}
    assert sorted(measure_curve(a_curve(points), Timing(), 1, lambda _: None, ends=True).figures) == [1, 8]


def test_a_measured_curve_comes_back_from_json_as_it_was() -> None:
    measured = Measured("x", 1, {1: {0: {"cpu_ns": 5}}}, {"2": "why"})
    told = {"name": "x", "unit": 1, "figures": {"1": {"0": {"cpu_ns": 5}}}, "left_out": {"2": "why"}}
    assert from_json(told) == measured


def test_every_curve_has_its_unit_among_its_points(tmp_path) -> None:
    made = {name: curve.points(tmp_path) for name, curve in BY_NAME.items() if name != "backlog"}  # that one is made
    assert [name for name, points in made.items() if BY_NAME[name].unit not in points] == []


@pytest.mark.parametrize("site", [Site(limits=8), Site(plans=50)])
def test_the_policy_of_a_site_is_one(site, tmp_path) -> None:
    (tmp_path / "bench.yaml").write_text(site._policy())
    policy = load(tmp_path, {"default"}).policy
    assert len(policy.plans) == site.plans


def test_a_key_is_spelled_alike_by_who_registers_it_and_by_who_asks() -> None:
    assert credential(17) == "bench-0000017"
    assert "'bench-%07d'" in over_keys(10, 1000)
    assert "draw(10) - 1) * 100" in over_keys(10, 1000)  # spread over all of them
    assert "draw(5)" in hot_and_tail(5)


def test_a_backlog_is_a_journal_of_as_many_records_all_closed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.curves.backlog.SEGMENT_BYTES", 4096)
    (tmp_path / "made").mkdir()
    left = Backlog(tmp_path / "made", 1000, (OPENED, CLOSED))
    left.make()
    for name, path in left.files(1000):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(path)
    reader = JournalReader(tmp_path, "0")
    found = [entry for _ in range(100) for entry in reader.read(1 << 20)]
    reader.close()
    assert [entry.sequence for entry in found] == list(range(1, 1001))
    assert len({entry.id for entry in found}) == 1000
    assert b'"sequence":"%018d"' % 1000 in found[-1].body
    folder = Folder(tmp_path / "0")
    last = folder.segments()[-1]
    # Mutation: a mark at an earlier place, or none, and the start reads it all again.
    assert folder.closed_until()[:2] == last
    assert look_back(folder).open == {}
    assert folder.raise_epoch(0) > last[0]


def test_a_shorter_backlog_is_the_beginning_of_the_longest(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.curves.backlog.SEGMENT_BYTES", 4096)
    left = Backlog(tmp_path, 100, (OPENED, CLOSED))
    left.make()
    segments = {count: [name for name, _ in left.files(count) if name.endswith(".seg")] for count in (0, 10, 100)}
    assert segments[0] == []
    assert segments[100][: len(segments[10])] == segments[10]
    assert len(segments[10]) < len(segments[100])


def test_a_backlog_for_which_there_is_no_room_is_refused_before_it_is_made(tmp_path) -> None:
    with pytest.raises(RunFailed, match="MiB are free"):
        Backlog(tmp_path, 10**12, (OPENED, CLOSED)).make()
    assert list(tmp_path.iterdir()) == []


def test_an_idle_connection_has_had_its_whole_answer() -> None:
    rest: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
                rest.append(peer.recv(1))

        thread = threading.Thread(target=answer)
        thread.start()
        idle.one(server.getsockname()[1], b"GET / HTTP/1.1\r\n\r\n").close()
        thread.join(30)
    assert rest == [b""]  # closed, and not reset in the middle of the answer
