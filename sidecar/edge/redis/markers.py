"""Detects a Redis that came back empty: each node has a marker, a key that is removed only by a loss of data.

A worker reads the marker on each new connection, before any other reply of it, and once a second. The data was lost if
the marker is missing although this worker has seen it, or if another worker that had not seen it created a new one. The
first worker to notice writes the time of the loss into the new marker, so that all workers know it, now and later.

A marker of version 0.1 has no number of the format of keys. To this version the counters there are lost, until
`sidecar migrate` has moved them to the names of this version.

    sc:store:mark                  "01J9…  lost_us accepted_us format"     one Redis, or behind sentinels
    sc:{n}:store:mark              the same, one for each 128 slots of a cluster
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from redis.crc import key_slot

from sidecar.core.errors import StoreError
from sidecar.edge.redis.wire import command
from sidecar.ports import Clock

FORMAT: Final = 2  # of the keys beside the marker: core/limits/keys.py
GROUPS: Final = 128  # of a cluster's slots: each master that owns 255 consecutive slots has a marker
_SLOTS: Final = 16_384
log = logging.getLogger("sidecar.store")


class Nodes(Protocol):
    """The connection to Redis, with the nodes of a cluster. `groups`: 1, or GROUPS of a cluster."""

    @property
    def groups(self) -> int: ...

    def nodes(self) -> Mapping[Any, int]:
        """Each node, with a group whose marker it has."""

    def node(self, slot_key: str) -> Any:
        """The node of a key."""

    def send(self, slot_key: str, packed: bytes, done: Callable[[Any], None]) -> None: ...


@cache
def marker_keys(groups: int) -> tuple[str, ...]:
    """The keys of the markers, by group; in a cluster their hash tags belong to slots of the group."""
    if groups == 1:
        return ("sc:store:mark",)
    keys: dict[int, str] = {}
    number = 0
    while len(keys) < groups:
        keys.setdefault(key_slot(b"%d" % number) * groups // _SLOTS, f"sc:{{{number}}}:store:mark")
        number += 1
    return tuple(keys[group] for group in range(groups))


class RedisMarkers:
    """`check` reads one marker of each node. `losses` counts losses that this worker was the first to notice.

    The ids of known markers are saved in `path`, so that a loss while no worker ran is noticed too. `changed` is called
    after a loss, and when an operator has accepted it.
    """

    def __init__(self, nodes: Nodes, clock: Clock, mint: Callable[[], bytes], path: Path | None = None) -> None:
        self._nodes = nodes
        self._clock = clock
        self._mint = mint
        self._path = path
        self._seen: dict[str, str] = _load(path)  # marker's name → its id
        self._lost_us: dict[Any, int] = {}
        self.losses = self.last_us = 0
        self.changed: Callable[[], None] = lambda: None

    @property
    def lost(self) -> bool:
        """Whether a loss of some node is not accepted yet."""
        return any(self._lost_us.values())

    @property
    def latest_us(self) -> int:
        """The time of the latest loss that is not accepted; 0: there is no such loss."""
        return max(self._lost_us.values(), default=0)

    def lost_us(self, slot_key: str) -> int:
        """When the node of a key lost its data, by the clock of the first worker to notice; 0: never, or accepted."""
        return self._lost_us.get(self._nodes.node(slot_key), 0)

    def check(self) -> None:
        """Read one marker of each node, and the markers that were never seen."""
        keys = marker_keys(self._nodes.groups)
        nodes = self._nodes.nodes()
        for node, group in nodes.items():
            self._ask(node, keys[group])
        if nodes and len(self._seen) < len(keys):
            for key in keys:
                if key not in self._seen:
                    self._ask(None, key)

    def _ask(self, node: Any, key: str) -> None:
        self._nodes.send(key, command("GET", key), partial(self._on_reply, node, key))

    def _on_reply(self, node: Any, key: str, reply: Any) -> None:
        if isinstance(reply, StoreError):
            return
        seen, now_us = self._seen.get(key), self._clock.now_us()
        if reply is None:
            lost_us = now_us if seen is not None else 0
            self._make(node, key, lost_us, "NX")
            if lost_us:
                self._note(node, lost_us)
            return
        id_, lost_us, accepted_us, key_format = _read(reply)
        if key_format < FORMAT:
            if not self.lost_us(key):
                log.error("redis has the counters of an earlier version, which are not read: run `sidecar migrate`")
            lost_us, accepted_us = self.lost_us(key) or now_us, 0
        elif seen not in {None, id_} and not lost_us and not accepted_us:  # its creator did not notice the loss
            lost_us = now_us
            self._make(node, key, lost_us, "XX")
        elif seen is not None and seen != id_:
            self._replace_seen(node, key, id_)
        elif seen is None:
            self._see(key, id_)
        self._note(node, 0 if accepted_us >= lost_us else lost_us)

    def _make(self, node: Any, key: str, lost_us: int, how: str) -> None:
        id_ = self._mint().decode()
        packed = command("SET", key, f"{id_} {lost_us} 0 {FORMAT}", how)
        self._nodes.send(key, packed, partial(self._made, node, key, id_, lost_us))

    def _made(self, node: Any, key: str, id_: str, lost_us: int, reply: Any) -> None:
        if reply is None or isinstance(reply, StoreError):  # another worker was first: the next check reads its marker
            return
        self._see(key, id_)
        if lost_us and node is not None:
            self.losses += 1
            log.error(
                "redis came back empty (%s): counters begin at 0; limits with on_store_loss: deny refuse until their "
                "window is over, or until `sidecar counters accept-loss`",
                node or "the one of redis.url",
            )
            self._replace_seen(node, key, id_)

    def _replace_seen(self, node: Any, key: str, id_: str) -> None:
        """Store a marker's new id, and forget the node's other markers: they are lost too, and get new ids."""
        if node is not None:
            self._seen = {other: seen for other, seen in self._seen.items() if self._nodes.node(other) != node}
        self._see(key, id_)

    def _see(self, key: str, id_: str) -> None:
        self._seen[key] = id_
        if self._path is not None:
            try:
                draft = self._path.with_suffix(".new")
                draft.write_bytes(orjson.dumps(self._seen))
                draft.replace(self._path)
            except OSError as error:
                log.warning(
                    "redis markers: %s cannot be written (%s): a loss while this node is down will not be noticed",
                    self._path,
                    error,
                )

    def _note(self, node: Any, lost_us: int) -> None:
        if node is None or self._lost_us.get(node, 0) == lost_us:
            return
        if not lost_us:
            log.warning(
                "the loss of redis (%s) was accepted: limits with on_store_loss: deny admit again",
                node or "the one of redis.url",
            )
        self._lost_us[node] = lost_us
        self.last_us = max(self.last_us, lost_us)
        self.changed()


def _read(reply: bytes) -> tuple[str, int, int, int]:
    words = [*reply.decode("ascii", "replace").split(), "1"]
    try:
        return words[0], int(words[1]), int(words[2]), int(words[3])
    except (IndexError, ValueError):  # not written by a sidecar: as if a marker with an unknown id
        return "", 0, 0, FORMAT


def _load(path: Path | None) -> dict[str, str]:
    try:
        seen = orjson.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def is_lost(reply: bytes) -> bool:
    """Whether a marker says that its node was lost, and nobody has accepted it. Keys of version 0.1 count as lost."""
    _, lost_us, accepted_us, key_format = _read(reply)
    return lost_us > accepted_us or key_format < FORMAT


def accepted(reply: bytes, now_us: int) -> str:
    """The same marker, with its loss accepted."""
    id_, lost_us, _, _ = _read(reply)
    return f"{id_} {lost_us} {now_us} {FORMAT}"


def is_outdated(reply: bytes) -> bool:
    """Whether the keys beside a marker have names of version 0.1."""
    return _read(reply)[3] < FORMAT


def migrated(reply: bytes) -> str:
    """The same marker, beside which all keys have the names of this version."""
    id_, lost_us, accepted_us, _ = _read(reply)
    return f"{id_} {lost_us} {accepted_us} {FORMAT}"
