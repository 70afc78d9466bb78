"""Which worker accepts connections for another one that does not accept.

While a worker is restarted, or is stuck, connections wait in the backlog of its sockets. Another worker that accepts
takes them too, so that they wait no longer than others; with one worker they wait for its successor.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.supervisor.children import Child

Worker = tuple[Sequence[int], Child | None]  # its listening sockets, its process


class Cover:
    """Remembers which worker covers for which, by the index in the list of workers."""

    def __init__(self) -> None:
        self._helpers: dict[int, Child] = {}

    def update(self, workers: Sequence[Worker]) -> None:
        """To be called when a worker starts, ends or stops accepting."""
        accepting = [child for _, child in workers if child is not None and child.status.accepts]
        for index, (fds, child) in enumerate(workers):
            helper = self._helpers.get(index)
            served = child in accepting
            if helper is not None and (served or helper not in accepting):
                del self._helpers[index]
                helper.send({"do": "cover", "fds": list(fds), "on": False})
                helper = None
            if helper is None and accepting and not served and fds:
                helper = self._helpers[index] = accepting[index % len(accepting)]
                helper.send({"do": "cover", "fds": list(fds), "on": True})
