"""Whether a captured graph scripts: tried once, when it is captured, so that another way can be taken where it does not.

What is tried is what users do: script, save, load, call. The weights of the trial take no memory: each is one number, seen as
often as its shape asks for.
"""

from __future__ import annotations

import copy
import io
import warnings

import torch
from torch import fx, nn

from dendrofx.errors import CaptureError
from dendrofx.inputs import Inputs
from dendrofx.lower import lowered
from dendrofx.show import first_line


@torch.no_grad()
def refuse_unscriptable(gm: fx.GraphModule, example: Inputs | None) -> None:
    """Script a graph, save it and load it again, and run what was loaded.

    Args:
        gm: as captured; left unchanged.
        example: inputs as the graph takes them; None where there are none to run.

    Raises:
        CaptureError: one of these steps failed; names it.
    """
    error = _failure(_weightless(gm), example)
    if error and _failure(gm, example):  # with its own weights, in case it is for their lack
        raise CaptureError(error)


def _failure(gm: fx.GraphModule, example: Inputs | None) -> str:
    """What TorchScript says about a graph; nothing where it takes it."""
    step = "be scripted"
    try:
        scripted = lowered(gm)
        step, buffer = "be saved", io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(scripted, buffer)
        buffer.seek(0)
        step = "be loaded again"
        loaded = torch.jit.load(buffer)
        step = "be called after loading"
        if example is not None:
            example.copied().call(loaded)
    except Exception as error:
        return f"its graph cannot {step} (TorchScript: {_said(error)})"
    return ""


def _said(error: Exception) -> str:
    """The line of a TorchScript error that says what is wrong: the last of an interpreter's, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if "Error: " in line]
    return raised[-1] if raised else first_line(error)


def _weightless(gm: fx.GraphModule) -> fx.GraphModule:
    """A copy whose parameters are one number each."""
    memo: dict[int, object] = {id(b): b for b in gm.buffers()}
    for parameter in gm.parameters():
        one = torch.full((1,), 0.5).to(parameter.dtype).expand(parameter.shape)
        memo[id(parameter)] = nn.Parameter(one, requires_grad=False)
    return copy.deepcopy(gm, memo)
