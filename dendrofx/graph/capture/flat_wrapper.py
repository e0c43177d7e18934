"""What capturing by running needs: the model as a function of tensors alone, and tensors to run it on."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

WRAPPED = "wrapped"


class FlatWrapper(nn.Module):
    """The model with tensors in and a tuple of tensors out; it is the submodule `wrapped`.

    Args:
        model: what is captured.
        form: how it is called.
    """

    def __init__(self, model: nn.Module, form: CallForm) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)
        self.form = form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the output's tensors, in order; numbers that a trace turns into tensors stay constants of the form."""
        found, form = flatten(self.form.call_with(self.get_submodule(WRAPPED), tensors))
        kept = form.names if self.form.output is None else self.form.output.names
        return tuple(tensor for tensor, name in zip(found, form.names, strict=True) if name in kept)


@dataclass(frozen=True)
class Run:
    """What capturing by running the model gave.

    Attributes:
        gm: its graph.
        fixed: lines of the model that turn a tensor into a Python value.
        limits: input, axis, and largest size, where the graph may have been made for sizes up to that.
        guards: what torch says the graph holds for; see `dendrofx/values/guards.py`.
    """

    gm: fx.GraphModule
    fixed: tuple[str, ...] = ()
    limits: frozenset[tuple[str, int, int]] = frozenset()
    guards: tuple[str, ...] = ()


def two_samples(example: Inputs) -> tuple[Tensor, ...]:
    """Return the tensors of an example; a single sample twice, because a size of 1 is taken for a constant."""
    carrying = example.carrying
    if carrying and all(t.dim() > 0 and t.size(0) == 1 for t in carrying):
        example = example.take(torch.zeros(2, dtype=torch.long))
    return tuple(t for _, t in example.kwargs)


def place_of(error: BaseException) -> str:
    """Return ` at model.py:12  `if x.sum() > 0:``, the model's own line that failed, or torch's where there is none."""
    ours, torchs = str(Path(__file__).parent.parent), str(Path(torch.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    own = [f for f in frames if not f.filename.startswith(torchs)]
    layers = [f for f in frames if f.filename.startswith(f"{torchs}/nn/")]
    found = own or layers
    return f" at {found[-1].filename}:{found[-1].lineno}  `{found[-1].line}`" if found else ""
