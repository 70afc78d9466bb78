"""The life of a request: exchange.py tells it and ending.py its laws, arrival.py and facts.py what is known when.

Where bodies are read, or a request may be a retry, reading.py adds its steps; which one it is, a head says once.
"""

from __future__ import annotations

from sidecar.core.http.request import Request
from sidecar.gateway.arrival import Arrival
from sidecar.gateway.exchange import REPLAY_BYTES, RequestExchange
from sidecar.gateway.reading import ReadingExchange
from sidecar.ports import Client, House

__all__ = ["REPLAY_BYTES", "Arrival", "ReadingExchange", "RequestExchange", "serve"]


def serve(house: House, request: Request, client: Client) -> RequestExchange:
    """Begin the life of a request; the listener drives what is returned."""
    arrival = request.prepared
    if arrival is None or arrival.policy is not house.policy:
        arrival = request.prepared = Arrival(house, request)
    exchange = (ReadingExchange if arrival.reads else RequestExchange)(house, request, client)
    house.started()
    exchange.arrive(arrival)
    return exchange
