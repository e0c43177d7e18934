"""The rows of a table: the model eager, scripted, routed, the controls and what could be used instead, all frozen alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.compare import controls
from dendrofx.compare.case import Case
from dendrofx.compare.prepare import Prepared
from dendrofx.graph.capture import capture
from dendrofx.lowering.script import artifact_bytes, script
from dendrofx.rewriting.module import RoutedModule
from dendrofx.values.counts import Counts
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted

UNTIMED = ("oracle",)
FEW = 4  # samples that a baseline is captured on


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        module: what is timed: the eager model, or a frozen script module.
        counted: whether `module` has `forward_counted`.
        weight_bytes: parameters and buffers, shared storage once; None for a peer and for a loaded file.
        file_bytes: the saved artifact, None for the eager model, for a peer, and for a control, which nobody saves.
        first_call_ms: the first call of a freshly frozen module, on one sample.
    """

    name: str
    module: nn.Module
    counted: bool
    weight_bytes: int | None
    file_bytes: int | None
    first_call_ms: float


class Outside(nn.Module):
    """What does not run in TorchScript: nobody sees what it executes."""


class Saved(Outside):
    """A file in another format, loaded, and called as the model is."""

    def __init__(self, loaded: Callable[..., Any]) -> None:
        super().__init__()
        self.loaded = loaded

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (the model's own)
        """Return what the model returns."""
        return self.loaded(*args, **kwargs)


class Peer(Outside):
    """What a user could pick instead, called as the model is."""

    def __init__(self, run: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the peer's output."""
        return self.run(batch)


@torch.no_grad()
def peer_variants(peers: Mapping[str, Peer], case: Case) -> dict[str, Variant]:
    """Peers as rows; what they hold in memory is not known."""
    sample = case.test.batches(1)[0]
    return {name: Variant(name, peer, False, None, None, first_call(peer, sample)) for name, peer in peers.items()}


def whole(case: Case) -> Inputs:
    """Return all test samples as one batch."""
    return case.test.batches(len(case.test))[0]


def routed_counts(prepared: Prepared) -> Counts:
    """Return what the main row's module does on the test samples, one batch."""
    return counted(prepared.routed, [whole(prepared.case)])


def build_variants(prepared: Prepared, seed: int) -> dict[str, Variant]:
    """Return every row, scripted and frozen the same way, by name and in the order of the table."""
    case, routed = prepared.case, prepared.routed
    sample = case.test.batches(1)[0]
    modules: dict[str, nn.Module] = {"scripted": scriptable(case), **prepared.modules}
    saved = {*modules, *prepared.static}
    if routed.plan.rewrites:
        counts = routed_counts(prepared)
        modules |= {
            "always-full": controls.always_full(routed),
            "always-light": controls.always_light(routed),
            **prepared.static,
            "random": controls.at_random(routed, counts, seed),
            "oracle": controls.by_oracle(routed, counts, whole(case)),
        }
    eager = Variant("eager", case.model, False, _weight_bytes(case.model), None, first_call(case.model, sample))
    return {"eager": eager, **{n: scripted_variant(n, m, sample, n in saved) for n, m in modules.items()}}


def scriptable(case: Case) -> nn.Module:
    """Return the model as TorchScript takes it: as it is, or where it cannot, as it was captured."""
    if case.dead_rows is None:
        return case.model
    example = Inputs.of(case.calibration[0])  # its outputs on the test samples are compared anyway
    return capture(case.model, example.take(torch.arange(min(example.samples, FEW))), shapes=True)


def scripted_variant(name: str, module: nn.Module, sample: Inputs, saved: bool = True) -> Variant:
    """Return a module scripted and frozen, with what that costs; `saved` or not."""
    size = artifact_bytes(script(module)) if saved else None
    frozen = script(module, freeze=True)
    counted, first = isinstance(module, RoutedModule), first_call(frozen, sample)
    first_call(
        frozen, sample
    )  # on the second TorchScript optimises, and a race of calls of seconds has no call to spare for it
    return Variant(name, frozen, counted, _weight_bytes(module), size, first)


@torch.no_grad()
def first_call(module: nn.Module, sample: Inputs) -> float:
    """Return the milliseconds of a call."""
    start = time.perf_counter()
    sample.call(module)
    return (time.perf_counter() - start) * 1e3


def _weight_bytes(module: nn.Module) -> int:
    seen = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    packed = [getattr(m, "packed", None) for m in module.modules()]  # opaque, and a second copy of its plain weight
    return sum(seen.values()) + sum(p.numel() * p.element_size() for p in packed if isinstance(p, Tensor))
