import pytest

from tests.gateway.scene import Scene


@pytest.fixture
def scene():
    return Scene()
