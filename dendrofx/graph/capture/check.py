"""Checks around capture: what can be captured, and whether a graph computes what the model computes.

A graph is run against its model on the example and its variants (`variants.py`). Variants that the model itself rejects, by an
error or with NaN (attention to nothing but padding), are left out. Outputs must be equal bit for bit, form and constants
included. They may differ by rounding only where a reason is found: a copy of the model that gives the graph's very bits, and
differs from the model in named ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dendrofx.errors import CaptureError, InputError
from dendrofx.graph.capture.tracing import plain_attention
from dendrofx.graph.show import first_line
from dendrofx.values.difference import difference
from dendrofx.values.guards import SizeError
from dendrofx.values.inputs import Inputs
from dendrofx.values.numerics import rounding
from dendrofx.values.outputs import Output, flatten

# How variants of the number of samples end; a graph has to take any.
SAMPLES = ("one sample", "three samples")

Call = Callable[[nn.Module, Inputs], Any]
TRIES = 3  # of calls that another thread may have disturbed


def _as_given(module: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401
    return inputs.call(module)


def check_model(model: object) -> None:
    """Raise `InputError` for what is no model in eval mode on the CPU, with what to pass instead."""
    if isinstance(model, torch.export.ExportedProgram):
        raise InputError("transform takes the nn.Module that was exported, not its ExportedProgram")
    if not isinstance(model, nn.Module):
        raise InputError(f"transform takes an nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its submodule '{name}' is" if name else "this is"
            raise InputError(
                f"transform takes the nn.Module before torch.jit.script or trace: {what} TorchScript already, and cannot be"
                " looked into"
            )
    training = next((name or "the model" for name, m in model.named_modules() if m.training), None)
    if training is not None:
        raise InputError(f"'{training}' ({type(model).__name__}) is in training mode: call model.eval() first")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type == "meta":
            raise InputError(f"'{name}' is on meta: it has no values. Load the model's weights first")
        if tensor.device.type != "cpu":
            raise InputError(f"'{name}' is on {tensor.device}; dendrofx routes on CPUs: call model.to('cpu') first")


class DiffersError(CaptureError):
    """A graph does not compute what its model computes.

    Attributes:
        variant: the change of the example on which it does not; empty when it does not on the example itself.
    """

    def __init__(self, message: str, variant: str) -> None:
        super().__init__(message)
        self.variant = variant


@dataclass(frozen=True)
class Twin:
    """The model, changed in one way that moves the last bits.

    Attributes:
        module: the changed copy, or the model itself.
        why: the change, and why it moves them.
        plain: run it without torch's fused encoder layers.
    """

    module: nn.Module
    why: str
    plain: bool = False

    def run(self, inputs: Inputs, call: Call = _as_given) -> Output:
        """Return its output on some inputs."""
        with plain_attention() if self.plain else nullcontext():
            return flatten(call(self.module, inputs.copied()))


@torch.no_grad()
def verify(
    model: nn.Module,
    run: Callable[[Inputs], Any],
    tries: Iterable[tuple[str, Inputs]],
    twins: Sequence[Twin] = (),
    call: Call = _as_given,
    first: Output | None = None,
) -> tuple[float, str]:
    """Run a graph and its model on several inputs.

    Args:
        model: the original.
        run: calls its graph.
        tries: the example it was captured with, then its variants and what else there is, each with what is special about it.
        twins: each changed in one way more than the one before; the last has every change that capture made on purpose.
        call: how the model and its twins are called with such inputs.
        first: the model's output on the example, where it is known.

    Returns:
        The largest difference, relative to the largest output, and its reasons.

    Raises:
        DiffersError: they do, by more than rounding where there is a reason for that; names the variant.
    """
    worst, reasons = 0.0, dict[str, None]()
    for what, inputs in tries:
        wanted = first if first is not None and not what else _wanted(model, inputs, bool(what), call)
        if wanted is None:
            continue
        try:
            got = flatten(run(inputs))
        except SizeError as error:  # refused by name in every call
            if not what.endswith(SAMPLES):
                continue
            raise DiffersError(
                f"the captured graph of {type(model).__name__} fails on {inputs}{what}: {error}", what
            ) from error
        except Exception as error:
            raise DiffersError(
                f"the captured graph of {type(model).__name__} fails on {inputs}{what}: {first_line(error)}", what
            ) from error
        far = difference(wanted, got)
        if far == 0:
            continue
        why = _reasons(twins, inputs, wanted, got, call)
        if not why and far <= rounding() and _equal_again(model, run, inputs, call):
            continue
        if not why or not far <= rounding():
            raise DiffersError(_refusal(model, f"{inputs}{what}", far, why), what)
        worst = max(worst, far)
        reasons.update(dict.fromkeys(why))
    return worst, "; ".join(reasons)


def _equal_again(model: nn.Module, run: Callable[[Inputs], Any], inputs: Inputs, call: Call) -> bool:
    """Tell whether model and graph agree bit for bit when they run side by side, in one of a few tries.

    Another Python thread may change how many threads products run on, and with it their last bits, between two calls.
    """
    for _ in range(TRIES):
        wanted = _wanted(model, inputs, True, call)
        if wanted is not None and difference(wanted, flatten(run(inputs))) == 0:
            return True
    return False


def _refusal(model: nn.Module, where: str, far: float, why: list[str]) -> str:
    known = f": {'; '.join(why)}" if why else ": its forward does something at trace time that it does not do per call"
    step = (
        "Transform the submodule that holds the Linears instead, e.g. model.encoder = dendrofx.transform(model.encoder)"
    )
    if why and any(isinstance(m, nn.TransformerEncoder) for m in model.modules()):
        step = (
            "nn.TransformerEncoder zeroes padded positions on its fused path only: set use_nested_tensor = False on it"
        )
    return (
        f"the captured graph of {type(model).__name__} differs from the model on {where} (largest difference"
        f" {far:.3g} of the largest output){known}. {step}"
    )


def _wanted(model: nn.Module, inputs: Inputs, optional: bool, call: Call) -> Output | None:
    """Return the model's output on some inputs; None when these are optional and it rejects them."""
    try:
        output = flatten(call(model, inputs.copied()))
    except Exception:
        if optional:
            return None
        raise
    return None if optional and any(bool(t.isnan().any()) for t in output[0]) else output


def _reasons(twins: Sequence[Twin], inputs: Inputs, wanted: Output, got: Output, call: Call) -> list[str]:
    """Return the changes that lead from the model's bits to the graph's; none when no twin has those."""
    found: list[str] = []
    last = wanted
    for twin in twins:
        now = twin.run(inputs, call)
        if difference(last, now) != 0:
            found.append(twin.why)
        if difference(now, got) == 0:
            return found
        last = now
    return []
