"""Modules that tests only read, each transformed once per process, and the ways on which a module travels.

    made("residual").module      what `transform` returned
    made("residual").rows        a batch that it has not seen

A test that changes one (its tolerances, say) changes a `copy.deepcopy` of it.
"""

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, Int8, LearnedGate, LowRank, NoGate, Plan, Prepacked, Pruned, ResidualGate, RoutedModule
from tests import padded
from tests.asked import asked
from tests.models import Residual, compressible
from tests.recorded import EIGHT, LOW, rows
from tests.search.cascade import models as cascade


@dataclass(frozen=True)
class Made:
    """A transformed model.

    Attributes:
        model: the original.
        options: that it was transformed with, `calibration` among them.
        rows: a batch that it has not seen, as the model is called.
        module: what `transform` returned.
    """

    model: nn.Module
    options: Mapping[str, Any]
    rows: Any
    module: RoutedModule

    @property
    def plan(self) -> Plan:
        return self.module.plan

    def replayed(self, plan: Plan | None = None, **changes: Any) -> RoutedModule:
        """What the plan, or another, makes of the model, on the same data unless `changes` has others."""
        given = {"calibration": self.options.get("calibration"), **changes}
        return dendrofx.transform(self.model, plan=self.plan if plan is None else plan, **asked(**given))


def batches() -> list[Tensor]:
    """Calibration for models of 64 features."""
    return [rows(60, i) for i in range(10)]


def hard_and_easy() -> Tensor:
    """Rows for models of 64 features: usual ones, far ones and zeros."""
    return torch.cat([rows(300, 99), 50 * rows(30, 98), torch.zeros(2, 64)])


def _of_64(build: Callable[[], nn.Module] = compressible, **options: Any) -> tuple[nn.Module, dict[str, Any], Any]:
    return build(), {"calibration": batches(), "budget": 0.05, **options}, hard_and_easy()


def _certified(**options: Any) -> tuple[nn.Module, dict[str, Any], Any]:
    asked = {"calibration": cascade.batches(), "budget": Budget("flip", 0.02, 0.9), "light": [LowRank(4), LowRank(12)]}
    return cascade.classifier(), {**asked, **options}, cascade.rows(64, 5)


def _padded() -> tuple[nn.Module, dict[str, Any], Any]:
    asked = {"calibration": padded.batches(), "budget": 0.1, **padded.OPTIONS}
    return padded.rows_model(), asked, padded.inputs(padded.HARD)


_wide = partial(Residual, 64, 256)
_flat = partial(nn.Sequential, nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
KINDS: dict[str, Callable[[], tuple[nn.Module, dict[str, Any], Any]]] = {
    "mlp": partial(_of_64, light=LOW, gate=LearnedGate()),
    "search": _of_64,  # every light form and gate
    "residual": partial(_of_64, _wide, light=EIGHT, decide=False),
    "every-site": partial(_of_64, _wide, light=LowRank(2), calibration=None, decide=False),
    "no-gate": partial(_of_64, light=LOW, gate=NoGate()),
    "no-data": partial(_of_64, light=LowRank(6), gate=ResidualGate(), calibration=None, budget=0.2),
    "nothing-routed": partial(_of_64, _flat, light=LOW),
    "full-prepacked": partial(_of_64, light=LOW, full=Prepacked()),
    "full-pruned": partial(_of_64, light=LOW, full=Pruned(0.99), decide=False),
    "pruned-without-ridge": partial(_of_64, light=Pruned(0.97, precision=Int8(7)), decide=False),
    "more-rows-than-are-kept": partial(
        _of_64, _wide, light=Pruned(0.9), gate=LearnedGate(), decide=False, calibration=[rows(6000)]
    ),
    "gate-reads-light": partial(_of_64, light=LOW, gate=LearnedGate(3, reads="light")),
    "sites-by-another-seed": partial(_of_64, _wide, decide=False, sites="fc*", seed=7),
    "budget": partial(_certified, budget=Budget("deviation", 0.3), scope="block"),
    "cascade": partial(_certified, scope="model"),
    "padded": _padded,
}


@cache
def made(kind: str) -> Made:
    """The module of a kind; nothing is timed, and no draw of the test that asks first matters."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model, options, given = KINDS[kind]()
        model.eval()
        return Made(model, options, given, dendrofx.transform(model, **asked(**options, tune_seconds=0)))


# TorchScript may fuse pointwise operations.
SAME_KERNELS: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def set_all(module: nn.Module, value: float) -> None:
    """Set every tolerance of a module or its script."""
    dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), value))


def loaded(scripted: nn.Module) -> torch.jit.ScriptModule:
    """A script module, saved and loaded again."""
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)  # type: ignore[no-any-return]


def unpickled(module: nn.Module) -> Any:
    """A module, saved and loaded by torch as an object."""
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


# What becomes of a module on its way, by name; `SETTABLE` of these keep their tolerances.
SETTABLE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "eager": copy.deepcopy,
    "pickled": unpickled,
    "scripted": lambda m: dendrofx.script(copy.deepcopy(m)),
    "loaded": lambda m: loaded(dendrofx.script(m)),
}
ROUND_TRIPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    **SETTABLE,
    "frozen": lambda m: dendrofx.script(m, freeze=True),
    "frozen, loaded": lambda m: loaded(dendrofx.script(m, freeze=True)),
}
