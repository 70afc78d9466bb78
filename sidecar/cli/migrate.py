"""`sidecar migrate`: take over the data of an earlier version."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.core.words import counted
from sidecar.keys.migration import migrate as migrate_all

_EXAMPLES = 20


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
    settings = settings_of(config)
    progress = _Progress()
    try:
        report = migrate_all(settings, only_check=only_check, progress=progress)
    finally:
        progress.end()
    if as_json:
        print_json(report)
    else:
        for line in _lines(report, settings.journal.dir, only_check):
            click.echo(line)
    return int(_is_unfinished(report, only_check))


class _Progress:
    """The number of keys that were read, on one line of a terminal."""

    def __init__(self) -> None:
        self._is_shown = False

    def __call__(self, keys: int) -> None:
        if sys.stderr.isatty():
            self._is_shown = True
            click.echo(f"\r{keys:,} keys read", nl=False, err=True)

    def end(self) -> None:
        """Begin a new line after it."""
        if self._is_shown:
            click.echo(err=True)


def _lines(report: dict[str, Any], journals: Path, only_check: bool) -> Iterator[str]:
    for name, fault in report["journals"].items():
        yield f"journal {name}: {fault or 'is read as it is'}"
    if not report["journals"]:
        yield f"journal: none in {journals} (journal.dir)"
    if report["key_file"] is not None:
        yield f"key file {report['key_file']['path']}: {report['key_file']['fault'] or 'is read as it is'}"
    if report["redis"] is not None:
        yield from _redis_lines(report["redis"], only_check)
    elif report["journals"]:
        yield f"state of the counters: {report['state'] or 'is read as it is'}"
    if not _is_unfinished(report, only_check):
        yield "next: start the nodes of this version"


def _redis_lines(redis: dict[str, Any], only_check: bool) -> Iterator[str]:
    outdated, stayed, where = redis["outdated"], redis["stayed"], f"redis {redis['servers']}"
    if outdated:
        what = ", ".join([f"{number} {word}" for word, number in sorted(outdated.items())])
        done = "to be moved: stop all nodes, then run this without --check" if only_check else "moved"
        yield f"{where}: {counted(sum(outdated.values()), 'key')} of version 0.1 ({what}) {done}"
    elif not stayed:
        yield f"{where}: no key has a name of version 0.1"
    if stayed:
        yield f"{where}: {counted(stayed, 'key')} of version 0.1 cannot be moved"
        yield from [f"  {conflict['key']}: {conflict['reason']}" for conflict in redis["conflicts"][:_EXAMPLES]]
        if stayed > _EXAMPLES:
            yield f"  and {stayed - _EXAMPLES} more; --json lists the first 100"
        yield "  Delete each, or the other key of the two, then run this again: docs/operations.md says which is right."
        yield "  Until then nodes of this version treat all counters as lost."
    if redis["nodes"]:
        yield (
            f"{where}: nodes are connected ({counted(redis['nodes'], 'connection')}): once the last one of version 0.1 "
            "has stopped, run this again"
        )


def _is_unfinished(report: dict[str, Any], only_check: bool) -> bool:
    redis = report["redis"] or {"outdated": {}, "stayed": 0}
    faults = [*report["journals"].values(), report["state"], (report["key_file"] or {"fault": ""})["fault"]]
    return any(faults) or bool(redis["stayed"]) or (only_check and bool(redis["outdated"]))
