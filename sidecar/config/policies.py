"""A policy document and its JSON Schema. The module with the name of a part defines that part.

Unknown fields are refused, never ignored: a limit that silently does nothing is the worst fault.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from pydantic import Field

from sidecar.config.exclusions import ExclusionDoc
from sidecar.config.meters import MeterDoc
from sidecar.config.models import Model
from sidecar.config.patterns import Name
from sidecar.config.plans import CustomerDoc, PlanDoc
from sidecar.config.routes import RouteDoc
from sidecar.config.values import Customer, Unit
from sidecar.config.wallet_units import UnitDoc

_GRANTS: Final = "a plan's limits say what a balance pays for, and `sidecar wallet grant` fills it"


class PolicyDoc(Model):
    """One file. The files of a directory are merged; a name is defined once among them.

    `exclude`: exchanges that are recorded, not billed and not charged. `customers`: terms of their own, on top of a
    plan. `units`: how many digits after the point the wallets and prices in a unit have; 9 where nothing is said.
    """

    moved_fields: ClassVar = {
        "prices": "prices are a plan's: write them under plans",
        "wallets": _GRANTS,
        "balances": _GRANTS,
        "grants": _GRANTS,
    }

    meters: dict[Name, MeterDoc] = Field(default_factory=dict)
    routes: tuple[RouteDoc, ...] = ()
    exclude: tuple[ExclusionDoc, ...] = ()
    plans: dict[Name, PlanDoc] = Field(default_factory=dict)
    customers: dict[Customer, CustomerDoc] = Field(default_factory=dict)
    units: dict[Unit, UnitDoc] = Field(default_factory=dict)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PolicyDoc.model_json_schema()}
