"""Which outputs a budget is about, and what they hold sample by sample.

Outputs of one model differ in size: side by side, a large harmless one would hide a small important one. So each covered output is
measured on its own, and a budget holds for each of them.

    >>> covered = cover(("action", "value", "loss"), tensors, asked=("action", "value"))
    >>> covered.left
    ('loss',)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL
from dendrofx.values.outputs import flatten

# Names or places of outputs, as the caller gives them; None for those that a budget covers by default.
Named = str | int | tuple[str | int, ...] | None
_SHARED = "an input that all samples share needs scope='model', or a place inside the model, as a buffer"
_BESIDE = "no output of the model is: return what the budget is about beside it, such as the logits"


@dataclass(frozen=True)
class Covered:
    """The outputs that a budget is about.

    Attributes:
        names: of all tensors of the model's output, in order; see `TreeSpec.names`.
        places: of the covered ones among them, ascending.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def covered(self) -> tuple[str, ...]:
        """The names of the covered ones."""
        return tuple(self.names[p] for p in self.places)

    @property
    def left(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(n for p, n in enumerate(self.names) if p not in self.places)

    def pick(self, output: Any, samples: int) -> list[Tensor]:  # noqa: ANN401
        """Return the covered tensors of one call's output, each [samples, ...].

        Raises:
            InputError: one of them has no value per sample; names those that have.
        """
        tensors = flatten(output)[0]
        for place in self.places:
            if not _by_sample(tensors[place], samples):
                raise InputError(self._refusal(place, tensors, samples))
        return [tensors[p] for p in self.places]

    def rows(self, output: Any, samples: int) -> list[Tensor]:  # noqa: ANN401
        """Return the covered tensors as f32[samples, features]; a batch of one sample, such as one that is never cut, is one row.

        Raises:
            InputError: see `pick`.
        """
        if samples == 1:
            tensors = flatten(output)[0]
            return [tensors[p].reshape(1, -1).float() for p in self.places]
        return [t.reshape(samples, -1).float() for t in self.pick(output, samples)]

    def _refusal(self, place: int, tensors: Sequence[Tensor], samples: int) -> str:
        named = zip(self.names, tensors, strict=True)
        usable = tuple(n for n, t in named if t.is_floating_point() and _by_sample(t, samples))
        name, shape = self.names[place], tuple(tensors[place].shape)
        said = f"output '{name}' is shaped {shape} for {samples} samples: a deviation is per sample"
        if not usable:
            return f"{said}; {_SHARED if samples == 1 else _BESIDE}"
        return f"{said}. Name those that the budget is about: output={(usable[0] if len(usable) == 1 else usable)!r}"


def cover(names: Sequence[str], tensors: Sequence[Tensor], asked: Named = None) -> Covered:
    """Return the outputs that are asked for, by default every floating-point one.

    Args:
        names: of all tensors of an output.
        tensors: these.
        asked: names, paths that several names begin with, or places.

    Raises:
        InputError: no such output, or none with floating-point values.
    """
    floats = [p for p, t in enumerate(tensors) if t.is_floating_point()]
    if not floats:
        raise InputError(
            f"the outputs {', '.join(names)} are no floating-point tensors: a budget needs logits or values to compare"
        )
    if asked is None:
        return Covered(tuple(names), tuple(floats))
    wanted = asked if isinstance(asked, tuple) else (asked,)
    found = [p for name in wanted for p in _places(name, names, floats)]
    return Covered(tuple(names), tuple(sorted(set(found))))


def named_outputs(asked: object) -> Named:
    """Return names or places of outputs as the caller gives them: one, or a sequence of them.

    Raises:
        InputError: anything else.
    """
    if asked is None or _is_name(asked):
        return asked  # type: ignore[return-value]
    found = tuple(asked) if isinstance(asked, Sequence) and not isinstance(asked, str | bytes) else ()
    if not found or not all(map(_is_name, found)):
        raise InputError(f"output names outputs, such as 'logits', 0 or ('action', 'value'), got {asked!r}")
    return found[0] if len(found) == 1 else found


@torch.no_grad()
def covered_by(
    gm: fx.GraphModule,
    batches: Sequence[Inputs],
    which: Callable[[Sequence[str], Sequence[Tensor]], Covered],
    strict: bool,
) -> Covered:
    """Return the covered outputs of a captured module, checked to have one value per sample.

    Args:
        gm: the module; its outputs are named as the model's are.
        batches: the largest is run, and again with a sample less: an axis that has the batch's size by chance does not follow.
        which: `cover`, or a budget's.
        strict: refuse batches that are never cut, whose outputs are one sample otherwise.

    Raises:
        InputError: an output that is not per sample.
    """
    batch = max(batches, key=lambda b: b.samples)
    output = batch.call(gm.forward)
    tensors, form = flatten(output)
    call = gm.meta.get(CALL)
    names = form.names if call is None or call.output is None else call.output.names
    covered = which(names, tensors)
    read = covered.pick if strict else covered.rows
    read(output, batch.samples)
    if batch.samples > 2:
        try:
            fewer = batch.take(torch.arange(batch.samples - 1)).call(gm.forward)
        except Exception:  # a model of one batch size alone
            return covered
        read(fewer, batch.samples - 1)
    return covered


def _places(name: str | int, names: Sequence[str], floats: Sequence[int]) -> list[int]:
    """Return the floating-point outputs that a name, a path or a place means."""
    if isinstance(name, int):
        found = [name] if name in floats else []
    else:
        found = [p for p in floats if names[p] == name or names[p].startswith(f"{name}.")]
    if not found:
        raise InputError(
            f"output={name!r} is no floating-point output of the model; it has {', '.join(names[p] for p in floats)}"
        )
    return found


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _by_sample(tensor: Tensor, samples: int) -> bool:
    return tensor.dim() > 0 and tensor.size(0) == samples
