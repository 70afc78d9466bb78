import pytest

from sidecar.app.snapshot import PREFIX, Snapshot, policy_of
from sidecar.config.settings import load_settings
from sidecar.core.errors import Fault, PolicyError
from sidecar.core.policy import Route
from sidecar.core.usage import Draft


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "free.yaml").write_text("one")
    (tmp_path / "keys.yaml").write_text("keys: []")
    (tmp_path / "sidecar.yaml").write_text("journal: { dir: j }")
    return load_settings(tmp_path / "sidecar.yaml", {})


def load(pointed):
    """A policy whose version is what stands in its file."""
    return Draft((pointed.policies / "free.yaml").read_text(), (Route("all"),), (), {}, (), {})


def read(settings):
    return policy_of(settings).version, settings.keys.file.read_text()


def test_children_read_what_was_taken_not_what_was_edited_since(settings):
    # Fails if Snapshot.settings keeps the paths of the originals.
    snapshot = Snapshot(settings, load)
    assert snapshot.take() == "one"
    (settings.policies / "free.yaml").write_text("broken")
    settings.keys.file.unlink()
    assert read(snapshot.settings) == ("one", "keys: []")


def test_a_second_take_swaps_both_in_at_once(settings):
    snapshot = Snapshot(settings, load)
    snapshot.take()
    (settings.policies / "free.yaml").write_text("two")
    settings.keys.file.write_text("keys: [a]")
    snapshot.take()
    assert read(snapshot.settings) == ("two", "keys: [a]")


def test_a_wrong_edit_changes_nothing_and_its_fault_names_the_original(settings):
    wrong = []

    def loads(pointed):
        if wrong:
            raise PolicyError([Fault(str(pointed.policies / "free.yaml"), 3, "plans", "no")])
        return load(pointed)

    snapshot = Snapshot(settings, loads)
    snapshot.take()
    wrong.append(True)
    (settings.policies / "free.yaml").write_text("broken")
    with pytest.raises(PolicyError) as caught:
        snapshot.take()
    assert caught.value.faults == [Fault(str(settings.policies / "free.yaml"), 3, "plans", "no")]
    assert read(snapshot.settings)[0] == "one"


def test_policies_that_are_not_there_are_a_fault_that_names_them(settings, tmp_path):
    (settings.policies / "free.yaml").unlink()
    settings.policies.rmdir()
    with pytest.raises(PolicyError, match="policies: cannot be read: No such file or directory"):
        Snapshot(settings, load).take()


def test_what_a_killed_supervisor_left_is_swept_and_our_own_is_dropped(settings):
    left = settings.journal.dir / f"{PREFIX}old"
    left.mkdir(parents=True)
    snapshot = Snapshot(settings, load)
    assert not left.exists()
    snapshot.take()
    snapshot.drop()
    assert list(settings.journal.dir.iterdir()) == []
