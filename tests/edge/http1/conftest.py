import pytest

from tests.edge.http1.playbook import stage


@pytest.fixture
async def play():
    async with stage() as play:
        yield play


@pytest.fixture
async def client(play):
    return await play.connects()
