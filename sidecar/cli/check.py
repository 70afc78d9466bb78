"""`sidecar check`: validates a configuration and prints its routes, limits, prices and bounds, before it is run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from sidecar.checks.report import findings
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.tables import print_table, print_text
from sidecar.core.policy import NORMALISE


@click.command()
@config_option
@click.option("--offline", is_flag=True, help="Contact no upstream, Redis or Kafka, and leave the sink alone.")
@json_option
def check(config: Path | None, offline: bool, as_json: bool) -> int:
    """Validate settings, policies and keys; print routes, limits, prices and balances, with the bound of each.

    Upstreams, Redis, Kafka and the sink are contacted within 18 seconds; nothing is changed there. An error of a
    document is one line, `file:line: field: remedy`, with exit status 2. Exit status 1: `run` would not work, since a
    server refuses this node or the sink cannot be written. With warnings alone it is 0.

    Next: `sidecar run -c sidecar.yaml`. While it runs, SIGHUP applies an edited policy.
    """
    report = asyncio.run(findings(settings_of(config), offline=offline))
    if as_json:
        print_json(report)
    else:
        _print(report)
        _print_verdict(report, offline)
    return 1 if report["errors"] else 0


def _print_verdict(report: dict[str, Any], offline: bool) -> None:
    contacted = "; ".join([f"{name} {result}" for name, result in report["contacted"].items()])
    click.echo(f"contacted: {'nothing (--offline)' if offline else contacted or 'nothing: all is on this node'}")
    for warning in report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    for error in report["errors"]:
        click.echo(f"error: {error}", err=True)
    if not report["errors"]:
        click.echo("good")


def _print(report: dict[str, Any]) -> None:
    plural = "s" if report["workers"] > 1 else ""
    nodes = f" on each of {report['nodes']} nodes" if report["nodes"] > 1 else ""
    print_text(
        f"policy {report['version']}: counters in {report['counters']}, records to {report['records']}, "
        f"{report['workers']} worker{plural}{nodes}"
    )
    print_text(f"connections of clients: at most {report['max_connections']} per worker")
    if report["usage_path"]:
        hidden = f"; not of plan {', '.join(report['usage_hidden'])}" if report["usage_hidden"] else ""
        print_text(f"clients see what is left with their key: GET {report['usage_path']}{hidden}")
    click.echo("\nlisteners")
    print_table(report["listeners"], ("setting", "address", "scope", "url"))
    click.echo("\nupstreams")
    print_table(report["upstreams"], ("id", "urls", "host", "sets", "removes"))
    click.echo("\nroutes, most specific first")
    matched = [name for name in ("host", "headers") if any(route[name] for route in report["routes"])]
    spelled = ["paths"] if any(route["paths"] != NORMALISE for route in report["routes"]) else []
    print_table(
        report["routes"],
        ("id", "methods", "path", *matched, *spelled, "upstream", "credentials", "reads", "unread", "cors", "usage"),
    )
    click.echo("\nlimits")
    columns = ("plan", "customer", "id", "says", "meter", "scope", "over", "stage")
    if report["counters"] == "redis":
        outage = ("on_store_failure", "over_by_at_most", "on_store_loss", "over_by_a_store_loss")
        print_table(report["limits"], (*columns, *outage, *["lost_by_a_kill"] * report["leases"]))
        print_text(_BOUNDS_ON_REDIS)
    else:
        print_table(report["limits"], columns)
        print_text(_BOUNDS_IN_MEMORY)
    if report["leases"]:
        print_text("If a worker is killed, at most lost_by_a_kill leased units of the current window are lost.")
    if report["certificates"]:
        click.echo(
            "\ncertificates\n" + "\n".join(f"  {name}  until {day}" for name, day in report["certificates"].items())
        )
    _print_money(report)


_BOUNDS_ON_REDIS = (
    "\nNo limit is exceeded while Redis answers. While it does not, a limit is exceeded by at most over_by_at_most "
    "units per window (a rate: at any time). This holds for this node and all others that `redis.nodes` counts, "
    "through outages and restarts, as long as `journal.dir` is kept.\n"
    "Each time that Redis comes back empty, over_by_a_store_loss more units can pass: give Redis persistence "
    "(appendonly yes), or set `on_store_loss: deny` for the limit."
)
_BOUNDS_IN_MEMORY = (
    "\nNo limit is exceeded, not even after a restart or a kill. Counters are lost only if `journal.dir` is lost."
)


def _print_money(report: dict[str, Any]) -> None:
    if report["prices"]:
        click.echo("\nprices")
        print_table(report["prices"], ("plan", "customer", "meter", "price", "period", "paid_by"))
    if report["balances"]:
        click.echo("\nbalances")
        columns = ("plan", "customer", "id", "unit", "digits", "over", "stage")
        bounds = ("below_zero_per_exchange", "below_zero_in_total")
        shared = report["counters"] == "redis"
        print_table(report["balances"], (*columns, *bounds, *["while_redis_is_away"] * shared))
        print_text(
            "\nA balance falls below zero only if open exchanges use more than was held for them: each exchange by at "
            "most below_zero_per_exchange (`-`: no bound)."
        )
        if shared:
            print_text(
                "While Redis does not answer, at most while_redis_is_away is spent per outage, on all `redis.nodes`."
            )
    for balance in report["balances"]:
        if balance["unbounded_by"]:
            meters = ", ".join(balance["unbounded_by"])
            print_text(f"No bound for {balance['id']} of {balance['plan']}: {meters}. Set a `ceiling` at the price.")
    if report["exclude"]:
        click.echo("\nrecorded, but not billed and not charged")
        print_table(report["exclude"], ("id", "says"))
