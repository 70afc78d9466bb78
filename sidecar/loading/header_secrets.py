"""Secrets in the headers of upstreams: read and validated before a child starts, and again when a file changes.

The supervisor reads them, as certificates.py does with certificates, and the two are given to children together: in
memory, by the path of a file or `$NAME` of a variable. No value is in the settings, in an error or in a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.secret_text import VARIABLE
from sidecar.core.errors import Fault, PolicyError, unreadable
from sidecar.loading.certificates import Pem, read_pem

if TYPE_CHECKING:
    from sidecar.config.document import Loc
    from sidecar.config.secret_text import SecretText
    from sidecar.config.settings import Settings

_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_FILE_BYTES: Final = 64 << 10


def paths(settings: Settings) -> list[Path]:
    """The paths of all files that headers refer to, each once."""
    return list({path: None for _, text in _texts(settings) for path in text.files})


def read_secrets(settings: Settings, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The certificates and private keys, and the secrets of headers. PolicyError: each one that is missing or wrong."""
    faults: list[Fault] = []
    secrets: dict[str, str] = {}
    try:
        secrets = read_pem(settings)
    except PolicyError as error:
        faults += error.faults
    for loc, text in _texts(settings):
        faults += [settings.fault(loc, what) for what in _read(text, secrets, env)]
    token_file = settings.kafka.security.token_file if settings.kafka is not None else None
    if token_file is not None and not token_file.is_file():  # its token is read for each login
        what = f"{token_file} cannot be read: it is not a file; write the token to it"
        faults.append(settings.fault(("kafka", "security", "token_file"), what))
    if faults:
        raise PolicyError(faults)
    return secrets


def given(start: Mapping[str, Any], settings: Settings) -> Pem:
    """The secrets of the supervisor's start message, or of the files and variables if it has none."""
    secrets: Pem | None = start.get("pem")
    return read_secrets(settings) if secrets is None else secrets


def _texts(settings: Settings) -> Iterator[tuple[Loc, SecretText]]:
    """The texts of all headers, with their place in the settings."""
    for name, upstream in settings.upstreams.items():
        for header, text in upstream.headers.items():
            yield ("upstreams", name, "headers", header), text


def _read(text: SecretText, secrets: dict[str, str], env: Mapping[str, str]) -> Iterator[str]:
    """Read the sources of a text into `secrets`; yields what is wrong with them, or with the whole."""
    for source in text.sources:
        if source.startswith(VARIABLE):
            name = source.removeprefix(VARIABLE)
            if not env.get(name):
                state = "empty" if name in env else "not set"
                yield f"the environment variable {name} is {state}: set it, or write ${{file:/run/secrets/{name}}}"
                return
            secrets[source] = env[name]
        else:
            try:
                with Path(source).open("rb") as file:
                    secrets[source] = file.read(_FILE_BYTES).decode("latin-1").strip()
            except OSError as error:
                yield f"{source} {unreadable(error)}"
                return
            if not secrets[source]:
                yield f"{source} is empty"
                return
    if not _VALUE.fullmatch(text.fill(secrets)):
        sources = ", ".join(text.sources) or "the text"
        yield f"is not printable ASCII without spaces at its ends: look for a line break or an accent in {sources}"
