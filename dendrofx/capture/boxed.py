"""What capturing by running needs: the model as a function of tensors alone, tensors to run it on, and torch kept quiet."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from dendrofx.calling import CallForm, arguments
from dendrofx.inputs import Inputs
from dendrofx.outputs import flatten

BOX = "boxed"


class Boxed(nn.Module):
    """The model with tensors in and a tuple of tensors out; it is the submodule `boxed`.

    Args:
        model: what is captured.
        form: how it is called.
    """

    def __init__(self, model: nn.Module, form: CallForm) -> None:
        super().__init__()
        self.add_module(BOX, model)
        self.form = form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The output's tensors, in order."""
        named = dict(zip(self.form.tensors, tensors, strict=True))
        return tuple(flatten(self.get_submodule(BOX)(**named, **self.form.constants))[0])


@dataclass(frozen=True)
class Run:
    """What capturing by running the model gave.

    Attributes:
        gm: its graph.
        fixed: lines of the model that turn a tensor into a Python value.
        limits: axis, size in the example and largest size, where the graph may have been made for sizes up to that.
    """

    gm: fx.GraphModule
    fixed: tuple[str, ...] = ()
    limits: frozenset[tuple[int, int, int]] = frozenset()


def given_tensors(model: nn.Module, form: CallForm, example: Inputs) -> tuple[Tensor, ...]:
    """The example's tensors in the order of `form.tensors`."""
    given = arguments(model, example)
    return tuple(given[name] for name in form.tensors)


def two_samples(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A single sample twice, because a size of 1 is taken for a constant."""
    single = all(t.dim() > 0 and t.size(0) == 1 for t in tensors)
    return tuple(torch.cat([t, t]) if single else t for t in tensors)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without torch's fused encoder layers, which hide the Linears that they run."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def quiet() -> Iterator[None]:
    """What torch prints beside the errors that it raises is held back: partial graphs, tracebacks, remarks on symbols."""
    remarks = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before, remarks.disabled = remarks.disabled, True
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        remarks.disabled = before


def place_of(error: BaseException) -> str:
    """` at model.py:12  `if x.sum() > 0:``, the model's own line that failed, or torch's where there is none."""
    ours, torchs = str(Path(__file__).parent), str(Path(torch.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    own = [f for f in frames if not f.filename.startswith(torchs)]
    layers = [f for f in frames if f.filename.startswith(f"{torchs}/nn/")]
    found = own or layers
    return f" at {found[-1].filename}:{found[-1].lineno}  `{found[-1].line}`" if found else ""
