"""The states of an exchange, in the order in which it enters them. The table of what each means is in exchange.py."""

from __future__ import annotations

from typing import Final

ARRIVED: Final = 0
OPENED: Final = 1
DISMISSED: Final = 2
ENDED: Final = 3
RECORDED: Final = 4
FINISHED: Final = 5

CLIENT_GONE: Final = 499  # nginx's status for an answer that nobody waited for
