"""The rows of a table: the model eager, scripted, routed, and the controls, all frozen alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import dendrofx
from benchmarks.cases import Case
from dendrofx import controls
from dendrofx.gates import GateForm
from dendrofx.inputs import Inputs
from dendrofx.light import LightForm
from dendrofx.lower import artifact_bytes
from dendrofx.measure import Counts, counted_outputs

# Where nothing is timed, fitting runs on two threads, so that a seed gives the same branches whatever --threads says.
FIT_THREADS = 2
UNTIMED = ("oracle",)


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        module: what is timed: the eager model, or a frozen script module.
        counted: whether `module` has `forward_counted`.
        weight_bytes: parameters and buffers, shared storage once.
        file_bytes: the saved artifact, None for the eager model.
        first_call_ms: the first call of a freshly frozen module, on one row.
    """

    name: str
    module: nn.Module
    counted: bool
    weight_bytes: int
    file_bytes: int | None
    first_call_ms: float


@dataclass(frozen=True)
class Asked:
    """What the command line asks of `transform`.

    Attributes:
        light, gate: named forms, None for the ladder.
        plan: a plan to reproduce instead of deciding.
        tune_seconds: time for timing parts, per transform.
    """

    max_deviation: float = 0.01
    seed: int = 0
    light: LightForm | None = None
    gate: GateForm | None = None
    plan: dendrofx.Plan | None = None
    tune_seconds: float = 60.0

    def options(self, case: Case, batch: int) -> dict[str, Any]:
        """Keyword arguments of `transform` for one batch size."""
        plan, seed = self.plan, self.seed
        if plan is not None and plan.origin is not None:
            seed = plan.origin.seed
        return {
            "calibration": case.calibration,
            "max_deviation": self.max_deviation if plan is None else plan.max_deviation,
            "seed": seed,
            "batch_sizes": [batch],
            "tune_seconds": self.tune_seconds,
        }


@dataclass(frozen=True)
class Prepared:
    """A case, transformed for one batch size.

    Attributes:
        batch: the size that transform decided for.
        asked: what the command line asked for.
        routed: what `transform` returned; where that is unrewritten, the same with `decide=False`.
        refused: whether `transform` refused every site.
        static: the light branches that are fastest on every row within the budget, and the case's own forms.
        transform_s: seconds that the `transform` of `routed` took.
    """

    case: Case
    batch: int
    asked: Asked
    routed: dendrofx.RoutedModule
    refused: bool
    static: Mapping[str, dendrofx.RoutedModule]
    transform_s: float
    plan: dendrofx.Plan
    static_plans: Mapping[str, dendrofx.Plan] = field(default_factory=dict)


def prepare(case: Case, batch: int, asked: Asked) -> Prepared:
    """Transform a case's model for a batch size: routed, and statically."""
    threads = torch.get_num_threads()
    if asked.plan is not None or asked.tune_seconds == 0:
        torch.set_num_threads(FIT_THREADS)
    try:
        return _prepared(case, batch, asked)
    finally:
        torch.set_num_threads(threads)


def _prepared(case: Case, batch: int, asked: Asked) -> Prepared:
    options = asked.options(case, batch)
    start = time.perf_counter()
    routed = dendrofx.transform(case.model, **options, light=asked.light, gate=asked.gate, plan=asked.plan)
    spent, plan = time.perf_counter() - start, routed.plan
    refused = not plan.routed
    if refused:
        routed = dendrofx.transform(case.model, **options, light=asked.light, gate=asked.gate, decide=False)
    static, plans = {}, {}
    for name, light in [("static-light", asked.light), *case.static.items()]:
        decide = name == "static-light"
        made = dendrofx.transform(case.model, **options, light=light, gate=dendrofx.AlwaysLight(), decide=decide)
        plans[name] = made.plan
        if made.plan.routed:
            static[name] = controls.always_light(made)
    return Prepared(case, batch, asked, routed, refused, static, spent, plan, plans)


def routed_counts(prepared: Prepared) -> Counts:
    """What the routed module does on the test rows, one batch."""
    return counted_outputs(prepared.routed, [Inputs((prepared.case.test,))])[1]


def build_variants(prepared: Prepared, seed: int) -> dict[str, Variant]:
    """Every row, scripted and frozen the same way, by name and in the order of the table."""
    model, routed = prepared.case.model, prepared.routed
    counts = routed_counts(prepared)
    modules: dict[str, nn.Module] = {
        "scripted": model,
        "routed": routed,
        "always-full": controls.always_full(routed),
        "always-light": controls.always_light(routed),
        **prepared.static,
        "random": controls.at_random(routed, counts, seed),
        "oracle": controls.by_oracle(routed, counts, Inputs((prepared.case.test,))),
    }
    row = prepared.case.test[:1]
    variants = {"eager": Variant("eager", model, False, _weight_bytes(model), None, _first_call(model, row))}
    for name, module in modules.items():
        variants[name] = scripted_variant(name, module, row)
    return variants


def scripted_variant(name: str, module: nn.Module, row: Tensor) -> Variant:
    """A module scripted and frozen, with what that costs."""
    unfrozen = dendrofx.script(module)
    size, weights = artifact_bytes(unfrozen), _weight_bytes(unfrozen)
    frozen = dendrofx.script(module, freeze=True)
    counted = isinstance(module, dendrofx.RoutedModule)
    return Variant(name, frozen, counted, weights, size, _first_call(frozen, row))


@torch.no_grad()
def _first_call(module: nn.Module, row: Tensor) -> float:
    start = time.perf_counter()
    module(row)
    return (time.perf_counter() - start) * 1e3


def _weight_bytes(module: nn.Module) -> int:
    seen = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    packed = [getattr(m, "packed", None) for m in module.modules()]  # opaque, and a second copy of its plain weight
    return sum(seen.values()) + sum(p.numel() * p.element_size() for p in packed if isinstance(p, Tensor))
