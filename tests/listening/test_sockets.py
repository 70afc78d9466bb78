import asyncio
import errno
import socket

import pytest

from sidecar.config.addresses import Address
from sidecar.core.errors import SidecarError
from sidecar.listening import sockets as module
from sidecar.listening.accepting import Acceptor, Clients
from sidecar.listening.sockets import Listeners, address_of, bind, listen, location, shut
from tests.servers.ipv6 import needs_ipv6

ANY = Address("127.0.0.1", 0)


@pytest.fixture
def sockets():
    made = []
    yield made
    for each in made:
        each.close()


def bound(sockets, workers, *where):
    found = bind("listen", where or [ANY], workers)
    mine = [each for mine in found for each in mine]
    sockets += mine
    listen("listen", mine)
    return found


def connected(where):
    client = socket.create_connection(where[:2], timeout=5)
    client.setblocking(False)
    return client


def acceptor(client):
    return Acceptor(Clients(client, dict, set(), 1_000, lambda _number: 0))


class Greeter(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


class Other(Greeter):
    def connection_made(self, transport):
        transport.write(b"other")
        transport.close()


async def greeted(client):
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 9), 5)


def test_workers_share_one_port_also_where_the_system_chooses_it(sockets):
    mine = bound(sockets, 3)
    assert len({each.getsockname() for [each] in mine}) == 1


def test_a_name_stands_for_all_its_addresses_on_one_port(sockets):
    for mine in bound(sockets, 2, Address("localhost", 0)):
        names = [each.getsockname()[0] for each in mine]
        assert "127.0.0.1" in names
        assert set(names) <= {"127.0.0.1", "::1"}
    assert len({each.getsockname()[1] for each in sockets}) == 1


def test_a_port_that_another_node_serves_is_refused_in_one_line(sockets, monkeypatch):
    # Fails if the port is tried with SO_REUSEPORT alone: two nodes would share it.
    monkeypatch.setattr(module, "LET_GO_SECONDS", 0)
    [[taken]] = bound(sockets, 1)
    where = Address(*taken.getsockname())
    with pytest.raises(
        SidecarError, match=rf"^listen: {where} cannot be bound: Address already in use: end the process"
    ):
        bind("listen", [ANY, where], 2)
    with pytest.raises(
        SidecarError, match=r"^control\.listen: 192\.0\.2\.1:80 cannot be bound: .*: set an address of this machine$"
    ):
        bind("control.listen", [Address("192.0.2.1", 80)], 1)


def test_a_socket_of_ours_on_the_same_address_is_refused_where_settings_named_it_otherwise(sockets):
    # Fails if an OSError is let through: `localhost:1` and `127.0.0.1:1` differ until they are looked up.
    [control] = bind("control.listen", [ANY], 1)
    where = address_of(control[0])
    [own] = bind("listen", [where], 1)
    sockets += control + own
    listen("control.listen", control)
    with pytest.raises(
        SidecarError, match=rf"^listen: {where} cannot be bound: Address already in use: end the process"
    ):
        listen("listen", own)


FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def reached(port):
    """The families that a client can connect to `port` by."""
    found = set()
    for family, host in FAMILIES:
        with socket.socket(family) as client:
            client.settimeout(5)
            if client.connect_ex((host, port)) == 0:
                found.add(family)
    return found


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "families"),
    [
        ("", {socket.AF_INET, socket.AF_INET6}),
        ("0.0.0.0", {socket.AF_INET}),
        ("::", {socket.AF_INET6}),
        ("::1", {socket.AF_INET6}),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_no_host_is_both_families_and_a_wildcard_only_its_own(sockets, workers, host, families):
    # Mutation: IPV6_V6ONLY is always 1, or always 0.
    mine = bound(sockets, workers, Address(host, 0))
    assert reached(mine[0][0].getsockname()[1]) == families
    assert {address_of(each).host for [each] in mine} == {host}


def test_no_host_is_ipv4_on_a_machine_without_ipv6(sockets, monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    [[sock]] = bound(sockets, 1, Address("", 0))
    assert (sock.family, address_of(sock).host) == (socket.AF_INET, "0.0.0.0")
    assert location(address_of(sock), "https").startswith("all IPv4 addresses: https://127.0.0.1:")


@needs_ipv6
def test_each_worker_has_a_socket_for_each_address_and_the_lines_have_urls(sockets):
    # Fails if the first address alone is bound, or if its port is given to the next.
    mine = bound(sockets, 2, ANY, Address("::1", 0))
    names = [[address_of(each) for each in own] for own in mine]
    assert names[0] == names[1]
    [(four, port), (six, other)] = names[0]
    assert (four, six, port != other) == ("127.0.0.1", "::1", True)
    assert [location(each, "http") for each in names[0]] == [f"http://127.0.0.1:{port}", f"http://[::1]:{other}"]


@needs_ipv6
@pytest.mark.parametrize("holder", [("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])
def test_a_port_that_one_family_has_in_use_is_refused_for_both(sockets, monkeypatch, holder):
    # Fails if the other family is served alone, unnoticed.
    monkeypatch.setattr(module, "LET_GO_SECONDS", 0)
    host, family = holder
    taken = socket.create_server((host, 0), family=family)
    sockets.append(taken)
    port = taken.getsockname()[1]
    with pytest.raises(
        SidecarError, match=rf"^listen: :{port} cannot be bound: Address already in use: end the process"
    ):
        bind("listen", [Address("", port)], 1)


@needs_ipv6
async def test_one_worker_accepts_on_all_its_addresses(sockets):
    # Mutation: `open` serves its first socket alone.
    [mine] = bound(sockets, 1, ANY, Address("::1", 0))
    listeners = Listeners([each.fileno() for each in mine], [], acceptor(Greeter))
    assert listeners.open() == ", ".join(str(address_of(each)) for each in mine)
    for each in mine:
        client = connected(each.getsockname())
        assert await greeted(client) == b"hello"
        client.close()
    listeners.close(for_good=True)
    for each in mine:
        with pytest.raises(ConnectionRefusedError):
            connected(each.getsockname())


async def test_connections_wait_while_nobody_accepts_and_are_served_then(sockets):
    [[sock]] = bound(sockets, 1)
    waiting = connected(sock.getsockname())
    first = Listeners([sock.fileno()], [], acceptor(Greeter))
    assert first.open() == str(Address(*sock.getsockname()))
    assert await greeted(waiting) == b"hello"
    assert first.close(for_good=False) == []
    waiting.close()
    waiting = connected(sock.getsockname())
    second = Listeners([sock.fileno()], [], acceptor(Greeter))
    second.open()
    assert await greeted(waiting) == b"hello"
    second.close(for_good=True)
    waiting.close()


async def test_an_end_for_good_serves_whom_the_kernel_let_in_and_refuses_all_later(sockets):
    # Fails if the sockets are only closed: the supervisor holds them, and connections would wait for nobody.
    [[sock]] = bound(sockets, 1)
    listeners = Listeners([sock.fileno()], [], acceptor(Greeter))
    listeners.open()
    clients = [connected(sock.getsockname()) for _ in range(3)]  # the loop does not turn, so nobody accepts them
    await asyncio.gather(*listeners.close(for_good=True))
    assert [await greeted(client) for client in clients] == [b"hello"] * 3
    for client in clients:
        client.close()
    with pytest.raises(ConnectionRefusedError):
        connected(sock.getsockname())


def test_connections_that_wait_in_the_kernel_are_accepted_before_the_port_is_shut(sockets):
    # Fails if the port is just shut: to these clients, who are connected, that is a reset.
    [[sock]] = bound(sockets, 1)
    sock.setblocking(False)
    clients = [connected(sock.getsockname()) for _ in range(3)]
    for each in shut(sock):
        each.sendall(b"in")
        each.close()
    assert [client.recv(9) for client in clients] == [b"in"] * 3
    for client in clients:
        client.close()


class Exhausted:
    """A listening socket in a process that has no descriptor left after one more connection."""

    def __init__(self, sock):
        self.listen, self.shutdown, self.sock, self.left = sock.listen, sock.shutdown, sock, 1

    def accept(self):
        if not self.left:
            raise OSError(errno.EMFILE, "Too many open files")
        self.left -= 1
        return self.sock.accept()


# Fails if only an empty queue ends it: a drain ended with the error, and cut what was under way.
def test_a_port_is_shut_also_where_descriptors_run_out(sockets):
    [[sock]] = bound(sockets, 1)
    sock.setblocking(False)
    clients = [connected(sock.getsockname()) for _ in range(2)]
    [accepted] = shut(Exhausted(sock))
    accepted.close()
    for client in clients:
        client.close()
    with pytest.raises(ConnectionRefusedError):
        connected(sock.getsockname())


# Fails if a covered socket is not accepted from, or still is when its worker is back.
async def test_a_covered_worker_s_connections_are_accepted_and_left_to_it_again(sockets):
    own, other = ([each] for [each] in bound(sockets, 2))
    listeners = Listeners([own[0].fileno()], [], acceptor(Greeter))
    listeners.open()
    listeners.cover([other[0].fileno()], on=True)
    for _ in range(20):  # the kernel spreads them over both
        client = connected(own[0].getsockname())
        assert await greeted(client) == b"hello"
        client.close()
    listeners.cover([other[0].fileno()], on=False)
    clients = [connected(own[0].getsockname()) for _ in range(20)]
    await asyncio.sleep(0.1)
    kept = Listeners([other[0].fileno()], [], acceptor(Other))
    kept.open()
    assert {await greeted(client) for client in clients} == {b"hello", b"other"}
    for client in clients:
        client.close()
    listeners.close(for_good=True)
    kept.close(for_good=True)
