"""The scripts on a real Redis whose clock is the test's, and the rule that they are held to, in the same shapes."""

import pytest

from sidecar.core.decision import Hold, wallet_charges
from sidecar.core.limits.priced import price_word
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Wallet
from sidecar.edge.redis.peeks import ClientPeeks
from sidecar.edge.redis.scripts import script_text
from sidecar.edge.redis.wire import command
from sidecar.testing import apply_writes
from tests.edge.counters_suite import SECOND_US
from tests.edge.redis.at_once import Blocking

CLOCK_LINE = b"local time = call('TIME')"
SET_CLOCK_LINE = b"local time = { string.match(call('GET', 'clock'), '^(%d+) (%d+)$') }"
LEDGER_LINE = b"local RELEASED, LEDGER, TRIMMED = 8, 10000, 1000"
SMALL_LEDGER_LINE = b"local RELEASED, LEDGER, TRIMMED = 2, 12, 5"


def small_ledgers(monkeypatch):
    """The rule's bounds as those of the patched scripts."""
    monkeypatch.setattr(wallet_charges, "RELEASED_MAX", 2)
    monkeypatch.setattr(wallets, "LEDGER_MAX", 12)
    monkeypatch.setattr(wallets, "LEDGER_TRIMMED", 5)


class OnSetClock(Blocking):
    """The same, with the scripts' lines that read Redis's clock replaced by a look at the test's, and small ledgers."""

    def __init__(self, port, cli, clock):
        super().__init__(port)
        self._cli = cli
        self._clock = clock
        self._set = {}
        plain = [["evaluate.lua", "reserve.lua"], ["evaluate.lua", "peek.lua"], ["settle.lua"]]
        for names in [["extend.lua"], *plain, *(["wallet.lua", *each] for each in plain)]:
            source = script_text(*names).encode()
            assert source.count(CLOCK_LINE) == 1 + ("wallet.lua" in names)
            assert source.count(LEDGER_LINE) == ("wallet.lua" in names)
            patched = source.replace(CLOCK_LINE, SET_CLOCK_LINE).replace(LEDGER_LINE, SMALL_LEDGER_LINE)
            self._set[cli.script_load(source).encode()] = cli.script_load(patched).encode()

    def call(self, packed):
        seconds, micros = divmod(self._clock.at_us, SECOND_US)
        self._cli.set("clock", f"{seconds} {micros}")
        for real, patched in self._set.items():
            packed = packed.replace(real, patched)
        return super().call(packed)


class Client:
    """A client of redis-py that sends over `commands`, for a caller that awaits nothing else."""

    def __init__(self, commands):
        self._commands = commands

    async def execute_command(self, *words):
        return self._commands.call(command(*words))


def peeked(commands, checks):
    """The answer of the script about `checks`."""
    asking = ClientPeeks(Client(commands)).peek(checks)
    with pytest.raises(StopIteration) as ended:
        asking.send(None)
    return ended.value.value


class Oracle:
    """core/decision on a dict that forgets nothing but slots that expired, when one is put, as the script."""

    def __init__(self):
        self.state = {}

    def store(self, writes, now_us):
        for write in writes:
            key, member, value, _ = write
            if member is not None and isinstance(value, int):
                slots = self.state.get(key, {})
                self.state[key] = {slot: expiry for slot, expiry in slots.items() if expiry > now_us}
            apply_writes(self.state, [write])


_READ_ALL = """
local found, read = {}, { string = { 'GET' }, hash = { 'HGETALL' }, zset = { 'ZRANGE', 0, -1, 'WITHSCORES' },
                          stream = { 'XRANGE', '-', '+' } }
for n, key in ipairs(redis.call('KEYS', 'sc:{*')) do
  local how = read[redis.call('TYPE', key).ok]
  found[n] = { key, redis.call(how[1], key, unpack(how, 2)) }
end
return found
"""


def stored(cli):
    """Redis's keys in the shapes of core/decision."""
    found = {key.decode(): value for key, value in cli.eval(_READ_ALL, 0)}
    shapes = {key: _shaped(key.split(":")[2], value) for key, value in found.items()}
    for key in [key for key in shapes if key.split(":")[2] == "holds"]:
        until, held = shapes.pop(key), shapes[key.replace(":holds:", ":held:")]
        assert until.keys() == held.keys()
        held.update({id_: (until[id_], *hold) for id_, hold in held.items()})
    return {key: shape for key, shape in shapes.items() if shape != _NO_WALLET}


def _shaped(name, value):
    if name in _MONEY:
        return _MONEY[name](value)
    if isinstance(value, list):  # marks have verdicts, slots have times
        return {member: mark.decode() if name == "ids" else int(mark) for member, mark in _pairs(value)}
    parts = tuple(int(part) for part in value.split())
    if not name.startswith("r="):
        return parts[0]
    return parts if len(parts) > 1 else (*parts, 0)


def _pairs(flat):
    return zip(flat[::2], flat[1::2], strict=True)


def _wallet(flat):
    fields = {name.decode(): value.decode() for name, value in _pairs(flat)}
    grants = [(name[2:], *map(int, value.split())) for name, value in fields.items() if name.startswith("g:")]
    return sorted(grants), int(fields.get("debt", 0)), int(fields.get("carried", 0))


def _ledger(entries):
    rows = [dict(_pairs(flat)) for _, flat in entries]
    return [
        (row[b"kind"].decode(), row[b"id"].decode(), int(row[b"delta"]), int(row[b"balance"]))
        + ((row[b"charges"].decode(),) if b"charges" in row else ())
        for row in rows
    ]


def _held(flat):
    held = {id_: hold.decode().split() for id_, hold in _pairs(flat)}
    return {
        id_: (int(words[0]), [tuple(words[at : at + 4]) for at in range(1, len(words), 4)])
        for id_, words in held.items()
    }


_NO_WALLET = ([], 0, 0)
_MONEY = {"wallet": _wallet, "ledger": _ledger, "held": _held}


def present(state):
    """What the rule has stored, in the same shapes, without what is empty."""
    return {key: _plain(value) for key, value in state.items() if value not in ({}, Wallet())}


def _plain(value):
    if isinstance(value, Wallet):
        return sorted(map(tuple, value.grants)), value.debt, value.carried
    first = next(iter(value.values())) if isinstance(value, dict) else None
    if isinstance(first, Hold):
        return {
            id_: (hold.expires_us, hold.charge, [_part(part) for part in hold.parts]) for id_, hold in value.items()
        }
    return list(value.values()) if isinstance(first, tuple) else value


def _part(part):
    return part.key, str(part.units), str(part.charge), price_word(part.price)


def outcome(decision):
    figures = decision.now_us, tuple(decision.remaining), tuple(decision.reset_us)
    return decision.allowed, decision.violated, decision.shadowed, figures, decision.checks.keys
