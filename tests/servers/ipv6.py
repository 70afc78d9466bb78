"""Tests of IPv6 on real sockets. A machine without IPv6 skips them, and the summary of the run says so."""

from __future__ import annotations

import socket

import pytest


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="THIS MACHINE HAS NO IPv6: nothing is known of its sockets")
