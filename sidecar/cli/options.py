"""Options that several commands share, and how they read a configuration."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
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


def settings_of(config: Path | None) -> Settings:
    """The settings of the file and the environment. PolicyError: everything that is wrong with them."""
    return load_settings(config, os.environ)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())
