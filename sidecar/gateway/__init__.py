"""The life of a request: exchange.py tells it, ending.py its laws, arrival.py and facts.py what is known when."""

from __future__ import annotations

from sidecar.core.http.request import Request
from sidecar.gateway.arrival import Arrival
from sidecar.gateway.exchange import REPLAY_BYTES, RequestExchange
from sidecar.ports import Client, House

__all__ = ["REPLAY_BYTES", "Arrival", "RequestExchange", "serve"]


def serve(house: House, request: Request, client: Client) -> RequestExchange:
    """Begin the life of a request; the listener drives what is returned."""
    exchange = RequestExchange(house, request, client)
    house.started()
    exchange.arrive()
    return exchange
