import asyncio

import pytest

from sidecar.supervisor.roles import ChildSlot, Role, child_view, status_text


@pytest.mark.parametrize(("status", "text"), [(-9, "SIGKILL"), (-200, "exit status -200"), (1, "exit status 1")])
def test_an_exit_status_is_told_in_words(status, text):
    assert status_text(status) == text


@pytest.mark.parametrize(("stage", "serves"), [(0, True), (1, False)])
async def test_a_post_that_nobody_fills_is_shown_with_how_the_last_one_ended(stage, serves):
    # Fails if a shipper counts among those that clients need: the node would not be ready without it.
    slot = ChildSlot(Role("w", ("true",), stage), restarts=3, last_status="ended with SIGKILL, is restarted")
    view = child_view(slot)
    assert (view.pid, view.ready, view.restarts, view.serves) == (0, False, 3, serves)
    assert view.reasons == ["ended with SIGKILL, is restarted"]
    assert isinstance(slot.draining, asyncio.Event)
