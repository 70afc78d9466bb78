"""The command line. A command reports what it did and what to do next. Each error is one line, without a traceback.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration. Every command is a module, imported only when it is
called, so that `sidecar --help` and the start of child processes do not load the other commands.
"""

from __future__ import annotations

import difflib
import gc
import io
import sys
from importlib import import_module

import click

from sidecar.cli.tables import printable
from sidecar.core.errors import PolicyError, SidecarError, StateError

EXIT_FAILED = 1
EXIT_WRONG = 2
FAULTS_SHOWN = 50  # of a document; a generated one has the same fault on thousands of lines
GC_OBJECTS = 100_000  # new objects before a collection: modules and policies are many objects, and nearly all stay

# name → the command's module and function, and its line in `--help`.
COMMANDS = {
    "run": ("sidecar.cli.run:run", "Serve: supervisor, workers, shipper and control listener."),
    "demo": ("sidecar.cli.demo:demo", "Try it in seconds: a small API, a free-tier key, limits and records."),
    "check": ("sidecar.cli.check:check", "Validate configuration and policies; print limits, prices and bounds."),
    "keys": ("sidecar.cli.keys:keys", "Make, list, revoke and rotate API keys, and change their plans."),
    "customers": ("sidecar.cli.customers:customers", "Show what customers have left of limits and balances."),
    "wallet": ("sidecar.cli.wallet:wallet", "Fill, void, show and audit prepaid wallets."),
    "counters": ("sidecar.cli.counters:counters", "Compare counters with records, rebuild them, accept a loss."),
    "migrate": ("sidecar.cli.migrate:migrate", "Take over the data of an earlier version, or check it."),
    "records": ("sidecar.cli.records:records", "Read records, and void, correct or backfill them."),
    "ledger": ("sidecar.cli.ledger:ledger", "Records for billing: load, sum up, trace, verify, seal."),
    "ship": ("sidecar.cli.ship:ship", "Ship a journal to Kafka or a file, and stop when it is empty."),
    "schema": ("sidecar.cli.schema:schema", "JSON Schema of records, policies and configuration."),
    "kafka": ("sidecar.cli.kafka:kafka", "Create and check the topics."),
}
HIDDEN = {
    "_worker": ("sidecar.cli.children:worker", ""),
    "_shipper": ("sidecar.cli.children:shipper", ""),
}


class Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table, the most used first."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        del ctx
        if (entry := (COMMANDS | HIDDEN).get(cmd_name)) is None:
            return None
        module, _, name = entry[0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of `args`. click suggests similar names of other groups only, whose commands it holds."""
        near = [] if args[0] in COMMANDS | HIDDEN else difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table, without imports."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        versions = import_module("sidecar.cli.versions")
        click.echo(versions.line())
        ctx.exit()


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="New here? Run `sidecar demo`; then write a sidecar.yaml and run `sidecar check -c sidecar.yaml`.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of the sidecar, the parser and the event loop, then exit.",
)
def cli() -> None:
    """A metering gateway: it identifies callers, enforces limits, and records usage for billing.

    The usage that is enforced is the usage that is billed.
    """


def _printable(error: object) -> str:
    """The text of an error, which may have several lines, without what would command a terminal."""
    return "\n".join(map(printable, str(error).split("\n")))


def main() -> None:
    """Run the command line. Each expected error becomes one line and an exit status."""
    gc.set_threshold(GC_OBJECTS, 20, 100)
    try:
        status = cli.main(prog_name="sidecar", standalone_mode=False)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        click.echo(_printable(text.getvalue().rstrip("\n")), err=True)
        status = error.exit_code
    except PolicyError as error:
        for fault in error.faults[:FAULTS_SHOWN]:
            click.echo(printable(str(fault)), err=True)
        if len(error.faults) > FAULTS_SHOWN:
            click.echo(f"and {len(error.faults) - FAULTS_SHOWN:,} more faults", err=True)
        status = EXIT_WRONG
    except (SidecarError, OSError) as error:
        click.echo(f"sidecar: {_printable(error)}", err=True)
        status = EXIT_WRONG if isinstance(error, StateError) else EXIT_FAILED
    except (click.Abort, KeyboardInterrupt):
        status = EXIT_FAILED
    sys.exit(status if isinstance(status, int) else 0)
