"""One child of a node, from its start message to its exit status: 0 done, 1 failed, 2 and 3 (below) cannot start.

It gets its settings from the supervisor and not from the file: a restarted child has the settings of its node, even if
the file was edited since. They are plain values: a child does not load the code that validates documents.
"""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import uvloop

from sidecar.core.errors import PolicyError, SidecarError, StateError
from sidecar.edge import logs
from sidecar.supervisor.link import Json, Link

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

    Work = Callable[[Settings, Link], Awaitable[None]]

EXIT_WRONG = 2  # its configuration cannot work: a restart would not help
EXIT_STATE = 3  # the saved state cannot be used: the node ends, even if an earlier child has served
log = logging.getLogger("sidecar.processes")


class PlainSettings:
    """Settings in a child: names and values, without the validation."""

    def __init__(self, values: Json) -> None:
        self.__dict__ |= values

    def __repr__(self) -> str:
        """Only its names: values may be passwords."""
        return f"PlainSettings({', '.join(self.__dict__)})"


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
    if not link.start:  # the supervisor ended before it sent the start message
        return 1
    settings = unpack_settings(link.start)
    logs.setup(name, settings.log.level, text=settings.log.format == "text")
    try:
        await work(settings, link)
    except PolicyError as error:
        for fault in error.faults:
            log.error("%s", fault)  # noqa: TRY400 - the operator's mistake, not ours: no stack
        return EXIT_WRONG
    except (SidecarError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - said by the error; a stack adds nothing
        return EXIT_STATE if isinstance(error, StateError) else 1
    finally:
        await link.close()
    return 0


def unpack_settings(start: Json) -> Settings:
    """The settings in a start message: `PlainSettings`, with every attribute of `Settings`."""
    # Passwords are masked in every textual form of settings, so the pipe carries the objects. Only our parent has the
    # other end of a socket pair that no path leads to.
    settings = pickle.loads(base64.b64decode(start["settings"]))  # noqa: S301 - see above
    assert isinstance(settings, PlainSettings)  # noqa: S101 - narrows what pickle cannot
    return cast("Settings", settings)
