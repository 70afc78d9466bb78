"""Exclusions in policy documents: exchanges that are recorded, not billed and not charged, such as health checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.meters import WhenDoc, when_faults, when_of
from sidecar.config.models import Model
from sidecar.config.names import At, Names
from sidecar.config.patterns import Name
from sidecar.config.values import Customers
from sidecar.core.errors import Fault
from sidecar.core.usage import Exclusion, When

RETRIES_MAX_US: Final = 7 * 86_400_000_000


class ExclusionDoc(Model):
    """Exchanges that are not billed, for the reason `id`. All given conditions must hold.

    `idempotency_key`: the request repeats a key of the same customer within that time. `customers`: it is one of these.
    `test_keys`: the API key is a test key.
    """

    id: Name
    idempotency_key_us: Annotated[int, Field(ge=1_000_000, le=RETRIES_MAX_US)] | None = None
    when: WhenDoc | None = None
    customers: Customers | None = None
    test_keys: bool = False


def faults_of(at: At, exclusion: ExclusionDoc, names: Names) -> Iterator[Fault]:
    """All faults of an exclusion."""
    when = exclusion.when or WhenDoc()
    if when == WhenDoc() and not (exclusion.idempotency_key_us or exclusion.customers or exclusion.test_keys):
        yield at.fault("excludes everything: say which with idempotency_key, when, customers or test_keys")
    yield from when_faults(at.at("when"), when, names)


def exclusion_of(doc: ExclusionDoc) -> Exclusion:
    """The exclusion, of a document without faults."""
    return Exclusion(
        doc.id,
        when_of(doc.when) if doc.when is not None else When(),
        frozenset(doc.customers or ()),
        doc.test_keys,
        doc.idempotency_key_us or 0,
    )
