import os

import pytest

from sidecar.config.settings import load_settings
from sidecar.core.errors import Fault, PolicyError, SidecarError
from sidecar.core.policy import Limit, Plan, Route
from sidecar.core.usage import PolicySource
from sidecar.loading.snapshot import LOCK, PREFIX, Snapshot, policy_of, staged


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "free.yaml").write_text("one")
    (tmp_path / "keys.yaml").write_text("keys: []")
    (tmp_path / "sidecar.yaml").write_text("journal: { dir: j }")
    return load_settings(tmp_path / "sidecar.yaml", {})


def load(pointed, _scales):
    """A policy whose version is what stands in its file."""
    return PolicySource((pointed.policies / "free.yaml").read_text(), (Route("all"),), (), {}, (), {})


def read(settings, place=lambda path: path):
    return policy_of(place(settings.policies)).version, place(settings.keys.file).read_text()


@pytest.fixture
def make():
    """Snapshots that are dropped in the end."""
    made = []

    def snapshot(*given):
        made.append(Snapshot(*given))
        return made[-1]

    yield snapshot
    for each in made:
        each.drop()


def test_children_read_what_was_taken_not_what_was_edited_since(settings, make):
    # Fails if Snapshot.settings keeps the paths of the originals.
    snapshot = make(settings, load)
    assert snapshot.stage() == "one"
    snapshot.commit()
    (settings.policies / "free.yaml").write_text("broken")
    settings.keys.file.unlink()
    assert read(snapshot.settings) == ("one", "keys: []")


def test_a_second_take_swaps_both_in_at_once(settings, make):
    snapshot = make(settings, load)
    snapshot.stage()
    snapshot.commit()
    (settings.policies / "free.yaml").write_text("two")
    settings.keys.file.write_text("keys: [a]")
    snapshot.stage()
    assert read(snapshot.settings) == ("one", "keys: []")
    assert read(snapshot.settings, staged) == ("two", "keys: [a]")
    snapshot.commit()
    assert read(snapshot.settings) == ("two", "keys: [a]")


def test_what_is_discarded_is_never_current_and_no_copies_pile_up(settings, make):
    snapshot = make(settings, load)
    snapshot.stage()
    snapshot.commit()
    [folder] = settings.journal.dir.glob(f"{PREFIX}*")
    for number in range(5):
        (settings.policies / "free.yaml").write_text(str(number))
        snapshot.stage()
        snapshot.discard()
        assert read(snapshot.settings)[0] == "one"
    for number in range(5):
        (settings.policies / "free.yaml").write_text(str(number))
        snapshot.stage()
        snapshot.commit()
        assert read(snapshot.settings)[0] == str(number)
    assert len(list(folder.glob("take-*"))) == 2  # a child may still be reading the one before


def test_a_fault_of_our_own_leaves_nothing_staged(settings, make):
    wrong = []

    def loads(pointed, scales):
        return load(pointed, scales) if not wrong else wrong[0][1]

    snapshot = make(settings, loads)
    snapshot.stage()
    snapshot.commit()
    wrong.append(())
    with pytest.raises(IndexError):
        snapshot.stage()
    [folder] = settings.journal.dir.glob(f"{PREFIX}*")
    assert [path.name for path in folder.iterdir() if path.name.startswith("take-")] == ["take-1"]
    snapshot.discard()
    assert read(snapshot.settings)[0] == "one"


def test_a_wrong_edit_changes_nothing_and_its_fault_names_the_original(settings, make):
    wrong = []

    def loads(pointed, scales):
        if wrong:
            raise PolicyError([Fault(str(pointed.policies / "free.yaml"), 3, "plans", "no")])
        return load(pointed, scales)

    snapshot = make(settings, loads)
    snapshot.stage()
    snapshot.commit()
    wrong.append(True)
    (settings.policies / "free.yaml").write_text("broken")
    with pytest.raises(PolicyError) as caught:
        snapshot.stage()
    assert caught.value.faults == [Fault(str(settings.policies / "free.yaml"), 3, "plans", "no")]
    assert read(snapshot.settings)[0] == "one"


def test_policies_that_are_not_there_are_a_fault_that_names_them(settings, tmp_path, make):
    (settings.policies / "free.yaml").unlink()
    settings.policies.rmdir()
    with pytest.raises(
        PolicyError, match=r"sidecar\.yaml:1: policies: .*policies cannot be read: No such file or directory"
    ):
        make(settings, load).stage()


def test_what_a_killed_supervisor_left_is_swept_and_our_own_is_dropped(settings):
    left = settings.journal.dir / f"{PREFIX}old"
    left.mkdir(parents=True)
    snapshot = Snapshot(settings, load)
    assert not left.exists()
    snapshot.stage()
    snapshot.drop()
    assert [path.name for path in settings.journal.dir.iterdir()] == [LOCK]


def test_a_second_node_on_one_journal_changes_nothing_and_says_who_owns_it(settings, make):
    # Fails if copies that another left are deleted before the lock is held.
    first = make(settings, load)
    first.stage()
    first.commit()
    with pytest.raises(SidecarError, match=f"journal.dir: .*/j is used by the node with pid {os.getpid()}:"):
        make(settings, load)
    assert read(first.settings)[0] == "one"


def test_the_next_node_owns_the_journal_of_one_that_has_ended(settings):
    for _ in range(2):
        Snapshot(settings, load).drop()


def test_a_load_is_told_the_scales_of_what_is_committed_and_not_of_what_was_staged(settings, make):
    # Fails if a discarded edit counts as applied: the next one would be held against it.
    asked = []

    def loads(pointed, scales):
        asked.append(dict(scales))
        digits = int((pointed.policies / "free.yaml").read_text())
        credit = Limit("credit", "balance", 0, unit="credits", digits=digits, period_us=10**6)
        return PolicySource("v", (Route("all"),), (Plan("pro", "pro@1", (credit,)),), {}, (), {})

    snapshot = make(settings, loads)
    for text in ("2", "3", "4"):
        (settings.policies / "free.yaml").write_text(text)
        snapshot.stage()
        snapshot.commit() if text != "3" else snapshot.discard()
    snapshot.stage()
    assert asked == [{}, {"credits": 2}, {"credits": 2}, {"credits": 4}]
