"""Options that several commands share, and how they read a configuration."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from sidecar.config.settings import Settings, load_settings

logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # what it has to say, our errors say in one line

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Add `-c/--config`, also from SIDECAR_CONFIG; without them ./sidecar.yaml if it exists, else the defaults."""
    return click.option(
        "-c",
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="SIDECAR_CONFIG",
        show_envvar=True,
        default=_settings_file,
        show_default="./sidecar.yaml where it exists",
        help="The settings file. Every setting can also come from the environment: SIDECAR_REDIS__URL.",
    )(function)


def _settings_file() -> Path | None:
    path = Path("sidecar.yaml")
    return path if path.exists() else None


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")(function)


def reason_option(function: F) -> F:
    """Add `--reason`, which is recorded."""
    return click.option(
        "--reason", required=True, callback=_not_blank, help="Why, for the record: such as a ticket's number."
    )(function)


def actor_option(function: F) -> F:
    """Add `--actor`, which is recorded; the default is the user of the operating system."""
    return click.option(
        "--actor",
        default=_os_user,
        show_default="the user of the operating system",
        callback=_not_blank,
        help="The person who decided, for the record.",
    )(function)


def _not_blank(_context: click.Context, parameter: click.Parameter, text: str) -> str:
    if not text.strip():
        raise click.BadParameter(f"is recorded: write a text, such as {parameter.opts[0]} 'ticket 4711'")
    return text


def _os_user() -> str:
    """The name of the user who runs the command, not of what the environment says; its number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def settings_of(config: Path | None) -> Settings:
    """The settings of the file and the environment. PolicyError: everything that is wrong with them."""
    return load_settings(config, os.environ)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets. A second one ends the process at once."""
    stop = threading.Event()
    before = {}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
