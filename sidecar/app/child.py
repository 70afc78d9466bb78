"""One child of a node, from its first word to its exit status. 0 done, 1 failed, 2 can never start as configured.

It gets its settings from the supervisor, not from the file: one that starts again runs what the node runs, even where
the file was edited since. What it is told is plain: what reads and judges documents is in no child's memory.
"""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import uvloop

from sidecar.app import logs
from sidecar.app.children import Json, Link
from sidecar.core.errors import PolicyError, SidecarError

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

    Work = Callable[[Settings, Link], Awaitable[None]]

EXIT_WRONG = 2  # its configuration can never work: starting it again would not help
log = logging.getLogger("sidecar.processes")


class Told:
    """Settings as a child knows them: their names and values, and nothing that judged them."""

    def __init__(self, values: Json) -> None:
        self.__dict__ |= values

    def __repr__(self) -> str:
        """Its names alone: among the values are passwords."""
        return f"Told({', '.join(self.__dict__)})"


class Secret:
    """A password or pepper, which no textual form shows."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """The value itself, by the name that pydantic's has."""
        return self._value


def run_child(name: str, fd: int, work: Work) -> int:
    """Run one child's `work` until it is drained; the exit status."""
    return uvloop.run(_run_child(name, fd, work))


async def _run_child(name: str, fd: int, work: Work) -> int:
    link = await Link.open(fd)
    if not link.start:  # the supervisor was gone before it had said anything
        return 1
    settings = told(link.start)
    logs.setup(name, settings.log.level, text=settings.log.format == "text")
    try:
        await work(settings, link)
    except PolicyError as error:
        for fault in error.faults:
            log.error("%s", fault)  # noqa: TRY400 - the operator's mistake, not ours: no stack
        return EXIT_WRONG
    except (SidecarError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - said by the error; a stack adds nothing
        return 1
    finally:
        await link.close()
    return 0


def told(start: Json) -> Settings:
    """The settings in a start message: `Told` with every attribute that `Settings` has, and read as if they were."""
    # Passwords are masked in every textual form of settings, so the pipe carries the objects. Only our parent has the
    # other end of a socket pair that no path leads to.
    found = pickle.loads(base64.b64decode(start["settings"]))  # noqa: S301 - see above
    assert isinstance(found, Told)  # noqa: S101 - narrows what pickle cannot
    return cast("Settings", found)
