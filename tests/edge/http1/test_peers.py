"""Whose connection it is, and how much of its answer has arrived."""

import asyncio
import socket

import pytest

from sidecar.edge.http1.peers import acknowledged_bytes, address_of, client_of


@pytest.mark.parametrize(
    ("peer", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        # Fails if each of the 2^64 addresses of a subscriber is a client.
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_the_64_of_an_ipv6_address(peer, other, same):
    assert (client_of(peer) == client_of(other)) is same


class Transport:
    def __init__(self, **info):
        self.info = info

    def get_extra_info(self, name):
        return self.info.get(name)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),  # Mutation: the prefix stays
        (("2001:db8::1", 1, 0, 0), "2001:db8::1"),
        ("", ""),  # a Unix socket
        (None, ""),
    ],
)
def test_an_address_is_that_of_the_client_in_its_own_family(peer, address):
    assert address_of(Transport(peername=peer)) == address


def test_of_a_closed_socket_no_byte_is_counted():
    # Fails if a client that leaves over TLS is an error in the log: its transport has no socket before it is told so.
    assert acknowledged_bytes(Transport()) == -1


async def test_the_bytes_that_have_arrived_are_counted():
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as ours:
        transport = Transport(socket=ours)
        before = acknowledged_bytes(transport)
        ours.sendall(b"x" * 1_000)
        async with asyncio.timeout(10):
            # Fails if another field of tcp_info is read.
            while acknowledged_bytes(transport) - before != 1_000:
                await asyncio.sleep(0.001)
