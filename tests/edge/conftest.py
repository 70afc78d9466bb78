"""A module that sets LOOP has its tests run on that loop; the data path is tested on the one that it runs on."""

import asyncio


def pytest_asyncio_loop_factories(config, item):
    return {"loop": getattr(item.module, "LOOP", asyncio.new_event_loop)}
