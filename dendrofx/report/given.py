"""What a report is about: the module, its original, and samples as the graph takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.graph.capture.prepare import unwrapped
from dendrofx.rewriting.cascade import shared_inputs
from dendrofx.rewriting.module import RoutedModule
from dendrofx.rows.mask_check import live_mask, mask_of
from dendrofx.values.calibration import read_batches
from dendrofx.values.covered import Covered, cover, covered_by
from dendrofx.values.drop_in import graph_level
from dendrofx.values.fingerprint import model_fingerprint
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import deviations, outputs
from dendrofx.values.meta import CALL, PLAN, RECIPE
from dendrofx.values.outputs import flatten

MOST_SAMPLES = 2000
MOST_BATCHES = 8  # that are timed in turns
LEAST_SAMPLES = 2


@dataclass(frozen=True)
class Given:
    """The module, its original and the samples.

    Attributes:
        original: what outputs and times are compared with; the module itself where it holds nothing else.
        is_model: `original` is the model that the caller gave, not what the module keeps of it.
        batches: as the graph takes them, cut into the size that the plan was decided for.
        left_out: samples of the caller's that were not used.
        covered: the outputs that are compared.
        reference: by covered output f32[N, features], the original's.
        place: of the one among them that deviates most in the mean: figures of deviations are about it.
    """

    module: RoutedModule
    original: fx.GraphModule
    is_model: bool
    batches: list[Inputs]
    left_out: int
    covered: Covered
    reference: list[Tensor]
    place: int = 0

    @property
    def output(self) -> str:
        """Name of the output that figures are about; empty where there is one alone."""
        return self.covered.covered[self.place] if len(self.reference) > 1 else ""

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(b.samples for b in self.batches)

    @property
    def timed(self) -> list[Inputs]:
        """The batches that are timed: of the size that most of them have."""
        size = Counter(b.samples for b in self.batches).most_common(1)[0][0]
        return [b for b in self.batches if b.samples == size][:MOST_BATCHES]

    @property
    def compares(self) -> bool:
        """Whether there is an original beside the module."""
        return self.original is not self.module

    def alive(self, batch: Inputs) -> Tensor | None:
        """Return bool[batch, tokens], the rows that are not dead; None where dead rows are not dropped."""
        dead = self.module.plan.dead_rows
        if dead is None or dead.status != "live":
            return None
        name, inverted = mask_of(dead.mask)
        return live_mask(dict(batch.kwargs)[name], inverted)

    @staticmethod
    def of(module: nn.Module, data: Any, model: nn.Module | None, batch_size: int | None) -> Given:  # noqa: ANN401
        """Read what `report` is called with; see there."""
        checked = _checked(module)
        read = _read(data)
        form = checked.meta.get(CALL)
        plain = [b if form is None else form.plain(b) for b in read]
        shared = _shared(checked)
        batches, left_out = _cut(
            [replace(b, shared=shared) for b in plain], _decided_for(checked) if batch_size is None else batch_size
        )
        original = _original(checked, model, read[0])
        asked = tuple(checked.plan.outputs) or None
        covered = covered_by(original, batches, partial(cover, asked=asked), strict=False)
        given = Given(checked, original, model is not None, batches, left_out, covered, [])
        given = replace(given, reference=outputs(_OnLiveRows(given), batches, covered))
        if len(given.reference) == 1:
            return given
        far = deviations(given.reference, outputs(checked, batches, covered))
        return replace(given, place=int(far.mean(0).argmax()))


class _OnLiveRows(nn.Module):
    """The original, with zeros at the dead rows of its outputs, as the module has them."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.given = given

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return its outputs."""
        batch = Inputs(args, tuple(kwargs.items()))
        output = batch.call(graph_level(self.given.original))
        if (alive := self.given.alive(batch)) is None:
            return output
        tensors, form = flatten(output)
        return form.unflatten([_live(t, alive) for t in tensors])


def _live(value: Tensor, alive: Tensor) -> Tensor:
    if value.shape[:2] != alive.shape:
        return value
    return torch.where(alive.reshape(*alive.shape, *[1] * (value.dim() - 2)), value, torch.zeros_like(value))


def _checked(module: nn.Module) -> RoutedModule:
    kind = type(module).__name__
    if not isinstance(module, RoutedModule) or PLAN not in module.meta:
        raise InputError(f"report takes the module that dendrofx.transform returned, got a {kind}: pass that module")
    if module.plan.rewrites and module.meta.get(RECIPE) is None:
        raise InputError(
            "this module does not hold its original's blocks, so nothing can be compared: pass the module that"
            " dendrofx.transform returned"
        )
    return module


def _read(data: Any) -> list[Inputs]:  # noqa: ANN401
    single = isinstance(data, Mapping | Inputs)
    if not single and not isinstance(data, Tensor | Iterable):
        raise InputError(f"data is a batch or an iterable of batches, as calibration= takes them, got {data!r}")
    read = [b for b in read_batches([data] if single else data) if b.samples > 0]
    if sum(b.samples for b in read) < LEAST_SAMPLES:
        raise InputError("data holds fewer than two samples: pass a few hundred that the calibration did not see")
    return read


def _shared(module: RoutedModule) -> frozenset[str]:
    """Return the inputs that all samples of a cascade share."""
    return shared_inputs(module)


def _decided_for(module: RoutedModule) -> int:
    origin = module.plan.origin
    return max(origin.batch_sizes) if origin is not None and origin.batch_sizes else MOST_SAMPLES


def _cut(batches: list[Inputs], size: int) -> tuple[list[Inputs], int]:
    """Cut batches into the size, up to the most samples, and count those that are left out."""
    if not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size is a whole number of at least 1, got {size!r}")
    parts = [b.take(i) for b in batches for i in torch.arange(b.samples).split(size)]
    kept: list[Inputs] = []
    for part in parts:
        if kept and sum(b.samples for b in kept) + part.samples > MOST_SAMPLES:
            break
        kept.append(part)
    return kept, sum(b.samples for b in parts[len(kept) :])


def _original(module: RoutedModule, model: nn.Module | None, example: Inputs) -> fx.GraphModule:
    recipe, origin = module.meta.get(RECIPE), module.plan.origin
    if model is None:
        return module if recipe is None else recipe.captured
    plain, _ = unwrapped(model)
    if origin is not None and model_fingerprint(plain) != origin.model:
        raise InputError(
            f"model= is another model than the one that was transformed: a {type(model).__name__}; pass that one"
        )
    return capture(plain, example, shapes=module.plan.rows_left_out or module.plan.cascade is not None)
