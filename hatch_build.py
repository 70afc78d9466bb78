"""Compiles the data path into the wheel where SIDECAR_COMPILE=1 asks for it; without, the wheel is pure Python.

The .py files are the only source: the wheel has them beside the output of mypyc, and an editable install runs them as
they are. Nothing is written into the tree. ADR 0005 says why mypyc, and what it costs.
"""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "SIDECAR_COMPILE"
GROUP = "sidecar"  # the shared library that holds them all: sidecar__mypyc
# One version: the tests of a wheel say something about its compiler only.
NEEDS = ("mypy==2.4.1", "setuptools>=77")

# A fault of mypyc 2.4: a slice of bytes that ends before it begins raises SystemError, where Python gives b"". Clients
# decide where bytes end, so it is mended in the run-time library that is compiled in, and not place by place.
FAULTY = "Py_ssize_t slice_len = endn - startn;"
MENDED = "Py_ssize_t slice_len = endn > startn ? endn - startn : 0;"

ROOT = Path(__file__).parent
# The kinds of limits, listed from the folder: a kind that is not compiled could not extend a compiled one.
LIMITS = [path for path in (ROOT / "sidecar/core/limits").glob("*.py") if path.stem not in {"__init__", "limit"}]

# The modules that run for each request. They are one group: a call that leaves compiled code is slower than before.
COMPILED = (
    *sorted(path.relative_to(ROOT).as_posix() for path in LIMITS),
    "sidecar/control/probe.py",
    "sidecar/core/decision/answer.py",
    "sidecar/core/decision/evaluate.py",
    "sidecar/core/decision/lease.py",
    "sidecar/core/decision/rule.py",
    "sidecar/core/decision/wallet_charges.py",
    "sidecar/core/digits.py",
    "sidecar/core/headers.py",
    "sidecar/core/http/body.py",
    "sidecar/core/http/forward.py",
    "sidecar/core/http/problem.py",
    "sidecar/core/http/request.py",
    "sidecar/core/http/response.py",
    "sidecar/core/instants.py",
    "sidecar/core/policy/terms.py",
    "sidecar/core/record/decisions.py",
    "sidecar/core/record/events.py",
    "sidecar/core/record/fields.py",
    "sidecar/core/record/frame.py",
    "sidecar/core/record/ids.py",
    "sidecar/core/record/templates.py",
    "sidecar/core/record/text.py",
    "sidecar/core/stripping.py",
    "sidecar/core/usage/billing.py",
    "sidecar/core/usage/body.py",
    "sidecar/core/usage/conditions.py",
    "sidecar/core/usage/meters.py",
    "sidecar/core/usage/quantities.py",
    "sidecar/core/usage/tap.py",
    "sidecar/edge/admission/breaker.py",
    "sidecar/edge/admission/denials.py",
    "sidecar/edge/clock.py",
    "sidecar/edge/degraded/counters.py",
    "sidecar/edge/http1/address.py",
    "sidecar/edge/http1/connecting.py",
    "sidecar/edge/http1/downstream.py",
    "sidecar/edge/http1/heads.py",
    "sidecar/edge/http1/large_heads.py",
    "sidecar/edge/http1/listener.py",
    "sidecar/edge/http1/peers.py",
    "sidecar/edge/http1/pool.py",
    "sidecar/edge/http1/upstream.py",
    "sidecar/edge/journal/log.py",
    "sidecar/edge/journal/writer.py",
    "sidecar/edge/keys/key_cache.py",
    "sidecar/edge/leases/counters.py",
    "sidecar/edge/leases/lease.py",
    "sidecar/edge/leases/returns.py",
    "sidecar/edge/leases/shared_table.py",
    "sidecar/edge/memory/counters.py",
    "sidecar/edge/redis/counters.py",
    "sidecar/edge/redis/wire.py",
    "sidecar/gateway/accounting.py",
    "sidecar/gateway/admission.py",
    "sidecar/gateway/context.py",
    "sidecar/gateway/exchange.py",
    "sidecar/gateway/extension.py",
    "sidecar/gateway/fields.py",
    "sidecar/gateway/guard.py",
    "sidecar/gateway/in_flight.py",
    "sidecar/gateway/inspection.py",
    "sidecar/gateway/policies.py",
    "sidecar/gateway/refusals.py",
    "sidecar/gateway/routing.py",
    "sidecar/gateway/states.py",
    "sidecar/ports.py",
)

# Modules, and whole packages, that run for a request or beside one and are not compiled, with the reason.
LEFT_OUT = {
    "sidecar/core/checksum.py": "chooses a function at import",
    "sidecar/core/decision/extension.py": "a few calls a second, for long exchanges",
    "sidecar/core/decision/grants.py": "changes of wallets by operators",
    "sidecar/core/decision/live.py": "shows limits to people",
    "sidecar/core/decision/peek.py": "asks how much of limits is left, for people",
    "sidecar/core/decision/saved.py": "saves the state, beside requests",
    "sidecar/core/decision/settled.py": "one call where the usage differs from what was reserved",
    "sidecar/core/decision/state.py": "a class that extends one of collections.abc",
    "sidecar/core/http/cors.py": "only for routes with `cors`, and called once a head there",
    "sidecar/core/http/vendor_errors.py": "only for refusals on AI routes",
    "sidecar/core/http/path.py": "one call a path; the result is cached",
    "sidecar/core/http/spelling.py": "only for targets that are not in normal form, and called once a head there",
    "sidecar/core/identity/": "dataclasses with slots",
    "sidecar/core/limits/limit.py": "a dataclass with slots; read as attributes",
    "sidecar/core/native.py": "a decorator for the compiler, called at import",
    "sidecar/core/policy/": "except terms.py: dataclasses with slots; computed at load, then read as attributes",
    "sidecar/core/price/": "dataclasses with slots; for balances only, which a script decides",
    "sidecar/core/record/postings.py": "postings of wallets, beside requests",
    "sidecar/core/record/adjustments.py": "changes by operators",
    "sidecar/core/record/alert.py": "one record per threshold and period",
    "sidecar/core/record/changes.py": "changes by operators",
    "sidecar/core/record/schema.py": "a document, for the command line",
    "sidecar/core/record/settlement.py": "only at start",
    "sidecar/core/record/statements.py": "a few records a day",
    "sidecar/core/usage/": "except those above: only for routes that read bodies; has dataclasses with slots",
    "sidecar/core/window.py": "the calendar: one call per window",
    "sidecar/edge/admission/drift.py": "only where a settle is given up",
    "sidecar/edge/http1/names.py": "a few calls a minute",
    "sidecar/edge/journal/backlog.py": "a few calls a second, of the supervisor",
    "sidecar/edge/journal/command_source.py": "only in commands",
    "sidecar/edge/journal/denial_budget.py": "one call per denial",
    "sidecar/edge/journal/entry.py": "as reader.py",
    "sidecar/edge/journal/folder.py": "only at start",
    "sidecar/edge/journal/journals.py": "as reader.py",
    "sidecar/edge/journal/orphan_recovery.py": "only at start",
    "sidecar/edge/journal/orphans.py": "as recovery.py",
    "sidecar/edge/journal/reader.py": "only in the shipper",
    "sidecar/edge/journal/predecessors.py": "runs at a start",
    "sidecar/edge/journal/recovery.py": "only at start",
    "sidecar/edge/journal/replay.py": "only at start",
    "sidecar/edge/journal/segments.py": "miscompiled: a KeyError in its constructor; one call per tick",
    "sidecar/edge/journal/settled.py": "one call a second",
    "sidecar/edge/journal/unsettled.py": "only at start",
    "sidecar/gateway/failed_authentications.py": "only for keys that are not in the cache",
    "sidecar/gateway/usage.py": "only for questions at the usage path, and for denials",
}


class CompileHook(BuildHookInterface[Any]):
    """Hatchling's hook of the wheel: adds one shared library, and a stub for each compiled module."""

    PLUGIN_NAME = "custom"
    out: Path | None = None  # the output folder

    def dependencies(self) -> list[str]:
        """The requirements of the build beside hatchling: none, unless it compiles."""
        return list(NEEDS) if is_requested() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled modules to the wheel. `version` is "standard" or "editable"; the second stays pure."""
        if version == "editable" or not is_requested():
            return
        out = self.out = Path(mkdtemp(prefix="sidecar-compiled-"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {str(path): path.relative_to(out / "lib").as_posix() for path in built(out)}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the output folder, once the wheel is written."""
        del version, build_data, artifact_path
        if self.out:
            rmtree(self.out)


def is_requested() -> bool:
    """Whether the environment asks for the compiled form; ValueError for a word that is neither yes nor no."""
    value = os.environ.get(VARIABLE, "")
    if value not in {"", "0", "1"}:
        raise ValueError(f"{VARIABLE}={value}: set 1 for a compiled wheel, 0 or nothing for a pure one")
    return value == "1"


def built(out: Path) -> list[Path]:
    """Compile into `out`/lib, from the folder of this file; the extension modules. About two minutes of one core."""
    from mypyc.build import mypycify  # noqa: PLC0415 - a pure build does without
    from setuptools import Distribution  # noqa: PLC0415 - as above

    # Types of other packages are not asked for, so that the outcome does not depend on what is installed beside.
    options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", f"--cache-dir={out / 'types'}"]
    extensions = mypycify(
        [*options, *COMPILED], opt_level="2", debug_level="0", group_name=GROUP, target_dir=str(out / "c")
    )
    for extension in extensions:
        extension.include_dirs.insert(0, str(mended_runtime(out / "mended")))
    command = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(out / "lib"), str(out / "objects")
    command.ensure_finalized()
    command.run()
    return sorted((out / "lib").rglob("*.so"))


def mended_runtime(folder: Path) -> Path:
    """A folder to look for C includes in before mypyc's own; RuntimeError where the fault is not found."""
    from mypyc.build import include_dir  # noqa: PLC0415 - as above

    text = Path(include_dir(), "bytes_ops.c").read_text()
    if text.count(FAULTY) != 1:
        raise RuntimeError(
            "mypyc's slices of bytes are not what hatch_build.py mends: see whether they are right by now"
        )
    folder.mkdir(exist_ok=True)
    (folder / "bytes_ops.c").write_text(text.replace(FAULTY, MENDED))
    return folder
