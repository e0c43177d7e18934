"""Whether a captured graph scripts: tried once, when it is captured, so that another way can be taken where it does not.

What is tried is what users do: script, save, load, call; and what is loaded has to give what the graph gives, for TorchScript
takes some Python (`parts[::-1]`) and does something else. The weights of the trial take next to no memory: rows of one overlap.
"""

from __future__ import annotations

import copy
import io
import warnings

import torch
from torch import Tensor, fx, nn

from dendrofx.errors import CaptureError
from dendrofx.graph.show import first_line
from dendrofx.lowering.script import lowered
from dendrofx.values.difference import tensor_difference
from dendrofx.values.inputs import Inputs
from dendrofx.values.numerics import rounding
from dendrofx.values.outputs import flatten


@torch.no_grad()
def refuse_unscriptable(gm: fx.GraphModule, example: Inputs | None, few: Inputs | None = None) -> None:
    """Script a graph, save it and load it again, and run what was loaded.

    Args:
        gm: as captured; left unchanged.
        example: inputs as the graph takes them; None where there are none to run.
        few: of its samples, which are run instead where the graph takes them.

    Raises:
        CaptureError: one of these steps failed; names it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's of its own deprecation, which a trial need not repeat
        light = _weightless(gm)
        example = example if few is None or not _takes(light, few) else few
        error = _failure(light, example)
        if error and _failure(gm, example):  # with its own weights, in case it is for their lack
            raise CaptureError(error)


def _failure(gm: fx.GraphModule, example: Inputs | None) -> str:
    """Return what TorchScript says about a graph; nothing where it takes it."""
    step = "be scripted"
    try:
        scripted = lowered(gm)
        step, buffer = "be saved", io.BytesIO()
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        step = "be loaded again"
        loaded = torch.jit.load(buffer)
        step = "be called after loading"
        if example is not None:
            got, wanted = (flatten(example.copied().call(m))[0] for m in (loaded, gm.forward))
            if not _alike(got, wanted):
                return "its graph computes something else when it is scripted"
    except Exception as error:
        return f"its graph cannot {step} (TorchScript: {_said(error)})"
    return ""


def _takes(gm: fx.GraphModule, inputs: Inputs) -> bool:
    try:
        inputs.copied().call(gm.forward)
    except Exception:
        return False
    return True


def _said(error: Exception) -> str:
    """Return the line of a TorchScript error that says what is wrong: the last of an interpreter's, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if "Error: " in line]
    return raised[-1] if raised else first_line(error)


def _weightless(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a copy whose parameters take next to no memory."""
    memo: dict[int, object] = {id(b): b for b in gm.buffers()}
    for parameter in gm.parameters():
        memo[id(parameter)] = nn.Parameter(_overlapping(parameter), requires_grad=False)
    return copy.deepcopy(gm, memo)


def _overlapping(parameter: Tensor) -> Tensor:
    """Return a weight of a parameter's shape, whose entry at (i, j) is the number i + j of a few random ones."""
    if not parameter.is_floating_point():
        return parameter.detach()
    count = sum(parameter.shape) - parameter.dim() + 1
    few = 0.1 * torch.randn(max(count, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return few.to(parameter.dtype).as_strided(parameter.shape, [1] * parameter.dim())


def _alike(got: list[Tensor], wanted: list[Tensor]) -> bool:
    """Say whether outputs are equal up to the order of sums."""
    return len(got) == len(wanted) and all(
        a.shape == b.shape and a.dtype == b.dtype and tensor_difference(b, a) <= 10 * rounding(b.dtype)
        for a, b in zip(got, wanted, strict=True)
    )
