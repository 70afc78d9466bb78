"""The questions that each kind of limit answers, and one check of one limit: limit x scope x window x cost.

A kind is one subclass of `Kind` in a module of its own, and one line in the registry. Nobody else in the project knows
kinds by name: whoever needs to know something of a limit asks its kind. No question has a default answer here, and a
test asks every kind every question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sidecar.core.identity import Identity
from sidecar.core.limits.keys import counter_stem
from sidecar.core.limits.leasing import Leasing
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.pace import OutageTime
from sidecar.core.price.decimals import DIGITS
from sidecar.core.window import Window

State = Mapping[str, Any]
# A limit at one instant: (whether it denies, remaining and reset_us as they are; remaining and reset_us if
# it is charged, the value to store then, and its expiry in µs). Where it denies, reset_us is until it would pass.
Evaluation = tuple[bool, int, int, int, int, Any, int]
Evaluator = Callable[[State, int], Evaluation]
# A change of the stored state: (key, member, value, expire_us): a member of the map at a key, or (None) the whole
# value. A value of None removes. The expiry is only cleaning; 0 leaves it as it was.
Write = tuple[str, bytes | int | None, Any, int]
Words = tuple[str | int, ...]

# The value under a limit's keys: a count of units; the arrival time of a rate; id -> expiry of its slot; a wallet.
COUNT: Final = "count"
RATE: Final = "rate"
SLOTS: Final = "slots"
WALLET: Final = "wallet"
STORED: Final = (COUNT, RATE, SLOTS, WALLET)

SCOPED_OPTIONS: Final = frozenset({"scope", "per_seat", "on_store_failure", "on_store_loss"})
METERED_OPTIONS: Final = SCOPED_OPTIONS | {"meter", "reserve", "exact"}
NO_WINDOW: Final = Window("", 0, 0)


class HeaderItem(NamedTuple):
    """How clients see a limit in RateLimit-Policy: its `unit` ("" is the default, requests), and a window in s or 0."""

    unit: str
    window_s: int


class Denial(NamedTuple):
    """The answer to a request that a limit denies. `detail` has places for {id}, {amount}, {meter} and {cost}."""

    status: int
    slug: str
    title: str
    detail: str


class Written(NamedTuple):
    """The figures of a limit as a policy document has them; of each only what its kind's `written_as` reads.

    `offline` is in the scale of `unit`, whose `digits` these are; `seats` multiplies amounts; `over` is the limit's.
    """

    amount: int = 0
    period_us: int = 0
    calendar: str = ""
    unit: str = ""
    digits: int = DIGITS
    burst: int = 0
    fixed: bool = False
    expiry_us: int = 0
    offline: int = 0
    seats: int = 1
    over: str = "deny"


class Check:
    """`cost` units asked of `limit` in one window, counted under `keys`.

    `keys`: one Redis key; for a sliding window two, the current and the previous; for a wallet four: wallet, ledger,
    holds, held. `role`: 0 denies, 1 never does, 2 only says that it would. `payer`: the place, among the checks of one
    request, of the wallet that pays for this one; -1: none does.
    """

    __slots__ = ("cost", "keys", "kind", "limit", "payer", "role", "window")

    def __init__(self, limit: Limit, kind: Kind, cost: int, keys: tuple[str, ...], window: Window) -> None:
        self.limit = limit
        self.kind = kind
        self.cost = min(cost, kind.cost_max)
        self.keys = keys
        self.window = window
        self.payer = -1
        self.role = 1 if kind.is_priced or limit.over == "allow" else 2 * (limit.stage != "enforce")

    def of(self, limit: Limit, cost: int) -> Check:
        """The same counter asked for another cost, under another definition of its limit."""
        made = Check(limit, self.kind, cost, self.keys, self.window)
        made.payer = self.payer
        return made


class Kind:
    """All that is asked of a kind. Units are the meter's unless said otherwise; times are µs since the epoch."""

    name: str  # in policies, records and files
    code: str  # in keys of the counter store; kinds with the same counters have the same
    stored_as: str  # one of STORED
    written_as: str  # in documents: "length" (5/s), "calendar" (5/month), "amount", "unit"; "": people do not write it
    example: str  # of that
    options: frozenset[str]  # fields of a document that mean something with some kinds only, and do with this one
    default_scope: str
    is_metered: bool  # counts units of the limit's meter; else each exchange costs `fixed_cost`
    fixed_cost: int
    cost_max: int  # more asked at once counts as this
    is_protective: bool  # counts what is excluded from the bill as well
    is_priced: bool  # never denies: its units are charged to the next wallet of the same unit
    leasing: Leasing | None  # how units are reserved ahead; None: never

    # The definition.

    def bounds_fault(self, limit: Limit) -> str | None:
        """Why a limit's arithmetic would not be exact in a Lua double (below 2^53), or None."""
        raise NotImplementedError

    def figures(self, written: Written) -> dict[str, Any]:
        """The fields of Limit that a document's figures yield."""
        raise NotImplementedError

    def same_counter(self, limit: Limit) -> dict[str, object]:
        """The fields that must be alike wherever a limit's id is used, beside kind, scope, meter and unit."""
        raise NotImplementedError

    def describe(self, limit: Limit) -> str:
        """The amount, for people, as in `100 per 60 s`; "" where it is listed with wallets and not with limits."""
        raise NotImplementedError

    # The counter.

    def window(self, limit: Limit, identity: Identity, now_us: int) -> Window:
        """The window that holds `now_us`; NO_WINDOW for a kind without windows."""
        raise NotImplementedError

    def keys(self, limit: Limit, identity: Identity, window: Window) -> tuple[str, ...]:
        """`Check.keys`."""
        raise NotImplementedError

    def expiry_us(self, limit: Limit, window: Window) -> int:
        """When the counter of a window may be dropped; late settles find it for a while after the window."""
        raise NotImplementedError

    # The decision.

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        """How the check is evaluated, made once. `forced`: what is charged without asking, past the limit as well."""
        raise NotImplementedError

    def correction(self, state: State, check: Check, id_: bytes, actual: int, age_us: int, now_us: int) -> Write | None:
        """The change to store when `actual` units replace the cost that the exchange `id_` reserved `age_us` ago."""
        raise NotImplementedError

    def must_settle(self, cost: int) -> bool:
        """Whether an exchange holds something that has to be given back in every ending."""
        raise NotImplementedError

    def hold_set(self, check: Check) -> tuple[str, str] | None:
        """The sorted set on Redis (arm of extend.lua, key) in which what an exchange holds expires; None: no holds."""
        raise NotImplementedError

    def extension(self, state: State, check: Check, id_: bytes, until_us: int, *, is_open: bool) -> Write | None:
        """The change that keeps what the exchange `id_` holds until `until_us`. `is_open`: it was not settled."""
        raise NotImplementedError

    def excess(self, checks: Sequence[Check], index: int, actual: Sequence[int], remaining: Sequence[int]) -> int:
        """By how much less than `remaining[index]` is left once `actual` units replace the costs of `checks`."""
        raise NotImplementedError

    def repeats_denial(self, limits: Sequence[Limit]) -> bool:
        """Whether what it denied, it denies a moment later as well. `limits` are those asked together."""
        raise NotImplementedError

    def first_alert(self, limit: Limit) -> int:
        """The remaining units at which the first alert may be due; the most possible where only the store knows."""
        raise NotImplementedError

    # While the store is away, and after it came back empty.

    def share(self, limit: Limit, workers: int) -> Limit:
        """The limit as one of `workers` applies it by itself, while the store does not answer."""
        raise NotImplementedError

    def refuses_alone(self, limit: Limit, workers: int) -> bool:
        """Whether an enforced limit denies all requests while the store does not answer."""
        raise NotImplementedError

    def over_admission(self, limit: Limit, workers: int) -> int:
        """Units (of a wallet: the amount) that all shares together may let through beyond an enforced limit."""
        raise NotImplementedError

    def share_unknown(self, check: Check, unknown_us: int, now_us: int, *, is_lent_unknown: bool) -> bool:
        """Whether its share may be used up, where nothing is known of what passed until `unknown_us`."""
        raise NotImplementedError

    def local_expiry_us(self, check: Check, value: Any) -> int:
        """When the `value` of a worker's own counter may be dropped."""
        raise NotImplementedError

    def outage_time(self, limit: Limit, workers: int) -> OutageTime | None:
        """When what was let through leaks; None where time gives nothing back."""
        raise NotImplementedError

    def loss_ends_us(self, limit: Limit, window: Window, lost_us: int) -> int:
        """When nothing that was counted before the loss at `lost_us` can count any more in `window`."""
        raise NotImplementedError

    def loss_ends_latest_us(self, limit: Limit, lost_us: int) -> int:
        """The same for every customer: of windows that begin on a day or in a zone of their own, the latest."""
        raise NotImplementedError

    # Headers, answers and records.

    def header_item(self, limit: Limit, window: Window) -> HeaderItem | None:
        """How clients see it; None: they do not."""
        raise NotImplementedError

    def denial(self, mode: str) -> Denial:
        """The answer to a request that it denied in this mode of decision."""
        raise NotImplementedError

    def record_item(self, check: Check) -> tuple[tuple[str, str | int | None], ...]:
        """Its members in a record's decision, in order; None marks the place of `record_figure`. (): it has none."""
        raise NotImplementedError

    def record_figure(self, limit: Limit, remaining: int) -> int:
        """The figure in a record: the units used, or of a wallet those that are left."""
        raise NotImplementedError

    # The scripts on Redis.

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        """Its arm of evaluate.lua, and what that reads behind role, cost and amount.

        `wallet`: where in KEYS the wallet begins that it pays from, or is; 0 for none.
        """
        raise NotImplementedError

    def settle_words(self, check: Check, actual: int, age_us: int, wallet: int) -> tuple[str, Words]:
        """Its arm of settle.lua, and what that reads, as for `correction`."""
        raise NotImplementedError


def scope_keys(code: str, limit: Limit, identity: Identity, *windows: str) -> tuple[str, ...]:
    """The keys of a limit's counters in these windows; "" for the counter of a kind that has none."""
    stem = counter_stem(code, limit.id, limit.scope, identity)
    return tuple([f"{stem}:{window}" if window else stem for window in windows])
