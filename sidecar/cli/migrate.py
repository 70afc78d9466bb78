"""`sidecar migrate`: take over the data of an earlier version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sidecar.app.migration import migrate as migrate_all
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.core.words import counted

_EXAMPLES = 5


@click.command()
@config_option
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Change nothing; exit with 1 where keys are to be moved, or data cannot be read.",
)
@json_option
def migrate(config: Path | None, only_check: bool, as_json: bool) -> int:
    """Move the keys of version 0.1 in Redis to the names that this version uses.

    Journals, key files and the state of a node without Redis are read as they are; it is checked that they can be.
    It may be repeated, and interrupted. Best with all nodes stopped; docs/operations.md says how to upgrade without.

    Next: start the nodes of this version.
    """
    report = migrate_all(settings_of(config), only_check=only_check, progress=_progress)
    if as_json:
        print_json(report)
    else:
        for line in _lines(report, only_check):
            click.echo(line)
    return int(_is_unfinished(report, only_check))


def _progress(keys: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{keys:,} keys read", nl=False, err=True)


def _lines(report: dict[str, Any], only_check: bool) -> list[str]:
    lines = [f"journal {name}: {fault or 'is read as it is'}" for name, fault in report["journals"].items()]
    if report["key_file"] is not None:
        lines.append(f"key file {report['key_file']['path']}: {report['key_file']['fault'] or 'is read as it is'}")
    if report["redis"] is None:
        return [*lines, f"state of the counters: {report['state'] or 'is read as it is'}"]
    outdated, conflicts = report["redis"]["outdated"], report["redis"]["conflicts"]
    if not outdated:
        return [*lines, "redis: no key has a name of version 0.1"]
    what = ", ".join([f"{number} {word}" for word, number in sorted(outdated.items())])
    done = "to be moved: run this without --check" if only_check else "moved"
    lines.append(f"redis: {counted(sum(outdated.values()), 'key')} of version 0.1 ({what}) {done}")
    if conflicts:
        lines.append(
            f"redis: {counted(len(conflicts), 'key')} not moved, since the new name has a value as well: "
            + ", ".join(conflicts[:_EXAMPLES])
        )
    return lines


def _is_unfinished(report: dict[str, Any], only_check: bool) -> bool:
    redis = report["redis"] or {"outdated": {}, "conflicts": []}
    faults = [*report["journals"].values(), report["state"], (report["key_file"] or {"fault": ""})["fault"]]
    return any(faults) or bool(redis["conflicts"]) or (only_check and bool(redis["outdated"]))
