"""Mirrors sidecar/edge/watch.py."""

import asyncio
import contextlib
import os
import shutil

import pytest

from sidecar.edge.watch import MAX_FILES, Watch, snapshot

TICK_S = 0.01


@pytest.fixture
async def watching():
    """`watching(path)` starts a watch and returns the list that its calls fill."""
    with contextlib.ExitStack() as stack:

        def watching(*paths):
            calls = []
            watch = Watch(paths, lambda: calls.append(None), TICK_S)
            watch.start()
            stack.callback(watch.stop)
            return calls

        yield watching


async def until(calls, count):
    async with asyncio.timeout(5):
        while len(calls) < count:
            await asyncio.sleep(TICK_S / 2)


async def ticks(count):
    """Let a watch look `count` times: long enough for whatever it would say."""
    for _ in range(count):
        await asyncio.sleep(TICK_S)


async def test_a_written_file_is_noticed_once(tmp_path, watching):
    path = tmp_path / "a.yaml"
    path.write_text("1")
    calls = watching(path)
    path.write_text("22")
    await until(calls, 1)
    await ticks(5)
    assert len(calls) == 1  # Fails if what was reported is not remembered


async def test_nothing_changed_is_never_reported(tmp_path, watching):
    (tmp_path / "a.yaml").write_text("1")
    calls = watching(tmp_path)
    await ticks(10)
    assert calls == []


async def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(tmp_path, watching):
    # An editor writes beside and renames. Fails if only size and mtime are compared.
    path, draft = tmp_path / "a.yaml", tmp_path / ".a.swp"
    path.write_text("1")
    before = path.stat()
    calls = watching(path)
    draft.write_text("2")
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns))
    draft.rename(path)
    await until(calls, 1)


async def test_a_swapped_config_map_is_noticed(tmp_path, watching):
    # Kubernetes: a.yaml -> ..data/a.yaml, ..data -> ..1; a new version is a new folder and one rename of ..data.
    # Fails if links are not followed.
    def version(name, text):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    version("..1", "one")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    by_folder, by_file = watching(tmp_path), watching(tmp_path / "a.yaml")
    version("..2", "two")
    shutil.rmtree(tmp_path / "..1")
    await until(by_folder, 1)
    await until(by_file, 1)
    assert (tmp_path / "a.yaml").read_text() == "two"


async def test_files_that_come_and_go_are_noticed(tmp_path, watching):
    calls = watching(tmp_path)
    (tmp_path / "a.yaml").write_text("1")
    await until(calls, 1)
    (tmp_path / "a.yaml").unlink()
    await until(calls, 2)


async def test_a_deleted_folder_is_survived_until_it_is_back(tmp_path, watching):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text("1")
    calls = watching(folder)
    shutil.rmtree(folder)
    await until(calls, 1)
    folder.mkdir()
    (folder / "a.yaml").write_text("1")
    await until(calls, 2)


async def test_what_is_still_moving_is_not_reported(tmp_path):
    # Half a copy is not a policy. Fails if a change is reported at the first look that sees it.
    path = tmp_path / "a.yaml"
    path.write_text("")
    calls = []
    watch = Watch([path], lambda: calls.append(path.read_text()), interval_s=3600)
    watch.start()
    for size in range(1, 5):
        path.write_text("x" * size)
        watch._tick()  # one look, when the test says so
        assert calls == []
    watch._tick()
    watch.stop()
    assert calls == ["xxxx"]


async def test_an_editor_s_hidden_files_are_not_looked_at(tmp_path, watching):
    (tmp_path / "a.yaml").write_text("1")
    calls = watching(tmp_path)
    (tmp_path / ".a.swp").write_text("2")
    await ticks(10)
    assert calls == []


async def test_a_callback_that_fails_does_not_end_the_watch(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("")
    loop, failures, calls = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def changed():
        calls.append(None)
        raise ValueError("a wrong policy")

    watch = Watch([path], changed, TICK_S)
    watch.start()
    path.write_text("1")
    await until(calls, 1)
    path.write_text("22")
    await until(calls, 2)  # Fails if the next look is planned after the callback
    watch.stop()
    assert [str(failure) for failure in failures] == ["a wrong policy"] * 2


async def test_a_stopped_watch_looks_no_more(tmp_path):
    calls = []
    watch = Watch([tmp_path], lambda: calls.append(None), TICK_S)
    watch.start()
    watch.stop()
    watch.stop()
    (tmp_path / "a.yaml").write_text("1")
    await ticks(10)
    assert calls == []


def test_a_folder_of_very_many_files_is_looked_at_within_a_bound(tmp_path):
    for number in range(MAX_FILES + 10):
        (tmp_path / f"{number}.yaml").touch()
    assert len(snapshot([tmp_path])) == MAX_FILES
