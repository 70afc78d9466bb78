"""The command line. A command says what it did and what to do next; what is wrong is one line each, never a traceback.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration. Every command is a module of its own, imported only
when it is the one asked for: `sidecar --help` and the children's start must not wait for what they do not use.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from sidecar.core.errors import PolicyError, SidecarError

EXIT_FAILED = 1
EXIT_WRONG = 2

# name → where the command is, and its line in `--help`.
COMMANDS = {
    "run": ("sidecar.cli.run:run", "Serve: supervisor, workers, shipper and control listener."),
    "demo": ("sidecar.cli.demo:demo", "See the main job done in seconds, with nothing but this machine."),
    "check": ("sidecar.cli.check:check", "Validate configuration and policies; print what they bind us to."),
    "keys": ("sidecar.cli.keys:keys", "Make, list, revoke and rotate API keys, and change their plans."),
    "wallet": ("sidecar.cli.wallet:wallet", "Fill, void, show and audit prepaid wallets."),
    "records": ("sidecar.cli.records:records", "Read records back: tail, verify, count."),
    "ship": ("sidecar.cli.ship:ship", "Carry a journal to Kafka or a file, and stop when it is empty."),
    "schema": ("sidecar.cli.schema:schema", "JSON Schema of records, policies and configuration."),
    "kafka": ("sidecar.cli.kafka:kafka", "Prepare the topics."),
}
HIDDEN = {
    "_worker": ("sidecar.cli.children:worker", ""),
    "_shipper": ("sidecar.cli.children:shipper", ""),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table: the first is what most people want."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        del ctx
        if (place := (COMMANDS | HIDDEN).get(cmd_name)) is None:
            return None
        module, _, name = place[0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table, importing nothing."""
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
    epilog="New here? `sidecar demo` shows it at work; then write a sidecar.yaml and `sidecar check -c sidecar.yaml`.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, and those of the parser and the loop, then exit.",
)
def cli() -> None:
    """A metering gateway: knows who calls, decides whether they may, and writes down what they used.

    What was enforced is what is billed.
    """


def main() -> None:
    """Run the command line, and turn what we raise on purpose into one line each and an exit status."""
    try:
        status = cli.main(prog_name="sidecar", standalone_mode=False)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except PolicyError as error:
        for fault in error.faults:
            click.echo(str(fault), err=True)
        status = EXIT_WRONG
    except (SidecarError, OSError) as error:
        click.echo(f"sidecar: {error}", err=True)
        status = EXIT_FAILED
    except (click.Abort, KeyboardInterrupt):
        status = EXIT_FAILED
    sys.exit(status if isinstance(status, int) else 0)
