"""The life of a request: exchange.py tells it and ending.py its laws, arrival.py and facts.py what is known when.

Where bodies are read, or a request may be a retry, reading.py adds its steps; which one it is, a head says once.
"""

from __future__ import annotations

from sidecar.gateway.arrival import Arrival
from sidecar.gateway.exchange import REPLAY_BYTES, RequestExchange
from sidecar.gateway.reading import ReadingExchange, serve

__all__ = ["REPLAY_BYTES", "Arrival", "ReadingExchange", "RequestExchange", "serve"]
