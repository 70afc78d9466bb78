"""`sidecar counters`: manage the counters in Redis, or of a node without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecar.cli.counter_comparison import (
    COLUMNS,
    Comparison,
    compare,
    report_notes,
    run_on_counters,
    write_metrics,
)
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.tables import print_rows
from sidecar.config.sections import Redis
from sidecar.config.settings import Settings
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.losses import accept_losses
from sidecar.ledger.counting import Scope

F = TypeVar("F", bound=Callable[..., Any])
_IN_FLIGHT = "units of open exchanges and leases are in counters and have no record yet"
_BELOW = "load corrections that were just recorded (`sidecar ledger load`); else `sidecar counters rebuild` raises them"
_POSTINGS = "SELECT customer, unit, sum(delta) FROM postings GROUP BY ALL"
_NEXT_WITHOUT_REDIS = (
    f'Next: if the volume was lost, grant balances again: `sidecar ledger query "{_POSTINGS}"`, in 10^-digits'
)
_NEXT = "Next: `sidecar counters accept-loss`, so that limits with `on_store_loss: deny` admit again"


@click.group()
def counters() -> None:
    """Manage the counters: compare them with the records, rebuild them, accept a loss."""


@counters.command("accept-loss")
@config_option
def accept_loss(config: Path | None) -> int:
    """Admit requests again for limits with `on_store_loss: deny`, after Redis came back empty.

    All nodes follow within a second. The counters continue from their present values.

    Next: `sidecar_store_losses_total` and the log show when Redis was lost. Give Redis persistence.
    """
    click.echo(_accept(_redis_of(settings_of(config))))
    return 0


def _redis_of(settings: Settings) -> Redis:
    if settings.redis is None:
        raise click.UsageError("redis.url is not set: the counters are of this node, so no Redis can lose them")
    return settings.redis


def _accept(redis: Redis) -> str:
    losses = asyncio.run(accept_losses(redis.endpoint))
    plural = "es" if losses > 1 else ""
    effect = "limits with `on_store_loss: deny` admit again within a second"
    return f"{losses} loss{plural} accepted: {effect}" if losses else "no loss is recorded"


def _scope_options(function: F) -> F:
    for option in (
        json_option,
        click.option("--limit", default="", metavar="ID", help="Only this limit."),
        click.option("--customer", default="", help="Only this customer."),
        config_option,
    ):
        function = option(function)
    return function


@counters.command()
@_scope_options
@click.option("--dry-run", is_flag=True, help="Compare only. Exit status 1: counters would change.")
@click.option("--exact", "is_exact", is_flag=True, help="Lower counters too. Stop all nodes before.")
@click.option("--accept-loss", "accepts", is_flag=True, help="Then accept the loss of Redis, as `accept-loss` does.")
def rebuild(
    config: Path | None, *, as_json: bool, dry_run: bool, is_exact: bool, accepts: bool, **scope: str
) -> int:  # fmt: skip
    """Set the counters of open windows to what the records say, after the store was lost or counters have drifted.

    The store is Redis; without it, this node: its worker, or its files while it is stopped.

    Records are those of the ledger, and of this node's journal: run `sidecar ledger load` first. A counter is raised
    to the sum of its records and never lowered, because units in flight have no record yet; --exact lowers it too.
    Rates have no history, and slots belong to open exchanges: both start empty.

    Next: on Redis `sidecar wallet rebuild --from-ledger --all`, then `sidecar counters accept-loss`.
    """
    settings = settings_of(config)
    lost = _redis_of(settings) if accepts else None
    comparison = compare(settings, Scope(**scope))
    changes = [each for each in comparison.differences if is_exact or each.difference < 0]
    if changes and not dry_run:
        sets = [(each.counter.key, each.records, each.counter.expires_us) for each in changes]
        run_on_counters(settings, lambda values: values.set(sets, is_exact=is_exact))
    _print(comparison, [each.as_row() for each in changes], as_json=as_json)
    left = len(comparison.differences) - len(changes)
    done = f"{counted(len(changes), 'counter')} {'would be' if dry_run else ''} set".replace("  ", " ")
    click.echo(f"{done}, of {len(comparison.counted.units)} that are open", err=True)
    if left:
        click.echo(f"{counted(left, 'counter')} above the records stay: {_IN_FLIGHT}; --exact lowers them", err=True)
    if not dry_run:
        following = _NEXT if settings.redis is not None else _NEXT_WITHOUT_REDIS
        click.echo(_accept(lost) if lost is not None else following, err=True)
    return 1 if dry_run and changes else 0


@counters.command()
@_scope_options
@click.option(
    "--metrics",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write `sidecar_counters_drift_units` to this file, in the text format of Prometheus' node exporter.",
)
def drift(config: Path | None, customer: str, limit: str, *, as_json: bool, metrics: Path | None) -> int:
    """Compare the counters of open windows with the sums of their records, largest differences first.

    Exit status 1: counters differ. While nodes serve, they do by the units of open exchanges and leases, and by records
    that are not loaded yet. The bill never depends on counters.

    Next: `sidecar counters rebuild --dry-run`.
    """
    settings = settings_of(config)
    comparison = compare(settings, Scope(customer, limit))
    if metrics is not None:
        write_metrics(metrics, comparison, SystemClock().now_us())
    _print(comparison, [each.as_row() for each in comparison.differences], as_json=as_json)
    above = sum(each.difference > 0 for each in comparison.differences)
    below = len(comparison.differences) - above
    click.echo(f"{above + below} of {len(comparison.counted.units)} counters differ from their records", err=True)
    if above:
        click.echo(f"{above} above: {_IN_FLIGHT}", err=True)
    if below:
        click.echo(f"{below} below: {_BELOW}", err=True)
    return 1 if above or below else 0


def _print(comparison: Comparison, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    report_notes(comparison)
    if as_json:
        sums = comparison.counted
        print_json({"compared": len(sums.units), "pending": sums.pending, "skipped": sums.skipped, "counters": rows})
    else:
        print_rows(rows, COLUMNS)
