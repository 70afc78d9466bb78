"""Targets that are not in normal form: their route normalises, preserves or refuses them.

A preserved target goes upstream as the client wrote it. The upstream may then read another path than the one that was
matched, so all paths that it may read have to match the same route: no spelling avoids what another route demands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.http.path import NoNormalForm, slash_fault
from sidecar.core.http.problem import Problem
from sidecar.core.http.request import Request, bad
from sidecar.core.http.spelling import deviation, readings
from sidecar.core.policy.model import PRESERVE, REFUSE, Route

if TYPE_CHECKING:
    from sidecar.core.policy.policy import Policy


def path_problem(policy: Policy, route: Route, request: Request) -> Problem | None:
    """Why a target that is not in normal form is refused on the route that its normal form matches; None: it passes."""
    if route.paths == REFUSE:
        return deviation(request.target)
    # On AI routes the model, and so the price, may be in the path, where an encoded slash would hide a part of it.
    fault = "" if route.paths == PRESERVE and not route.usage else slash_fault(request.target.partition(b"?")[0])
    if not fault and route.paths == PRESERVE:
        fault = _reading_fault(policy, route, request)
    return bad(fault, slug="ambiguous-path") if fault else None


def _reading_fault(policy: Policy, route: Route, request: Request) -> str:
    try:
        paths = readings(request.target)
    except NoNormalForm as error:
        return str(error)
    if all(policy.match(request.method, path, request.host, request.fields) is route for path in paths):
        return ""
    return "servers read this spelling of the path in several ways, which different routes match"
