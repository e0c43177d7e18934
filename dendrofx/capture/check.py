"""Checks around capture: what can be captured, and whether a graph computes what the model computes.

A graph may have burnt in what depended on the example: a size, a batch of one, a mask without padding. So it is run against
the model on variants of the example: a single sample, three samples, fewer tokens, and, for integer inputs of zeros and ones
(masks), all ones and ones with a ragged end. Variants that the model itself rejects are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import CaptureError, InputError
from dendrofx.inputs import Inputs
from dendrofx.outputs import flatten
from dendrofx.show import first_line

# What rounding may do: sums in another order, or torch's fused attention path against the plain one.
ROUNDING = 1e-5


def check_model(model: nn.Module) -> None:
    """Raise `InputError` for what is no model in eval mode on the CPU."""
    if not isinstance(model, nn.Module):
        raise InputError(f"transform takes an nn.Module, got {type(model).__name__}")
    training = next((name or "the model" for name, m in model.named_modules() if m.training), None)
    if training is not None:
        raise InputError(f"'{training}' ({type(model).__name__}) is in training mode: call model.eval() first")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise InputError(f"'{name}' is on {tensor.device}; dendrofx routes on CPUs: call model.to('cpu') first")


def variants(example: Inputs) -> Iterator[tuple[str, Inputs]]:
    """The example and its variants, each with what was changed."""
    yield "", example
    samples = example.samples
    if samples > 1:
        yield " with one sample", example.take(torch.zeros(1, dtype=torch.int64))
        yield " with three samples", example.take(torch.arange(3) % samples)
    tokens = {t.size(1) for t in example.tensors if t.dim() >= 2}
    if len(tokens) == 1 and (length := tokens.pop()) > 3:
        yield " with fewer tokens", example.map(lambda t: t[:, : length - length // 3] if t.dim() >= 2 else t)
    if any(map(is_mask, example.tensors)):
        yield " with every mask full", example.map(lambda t: torch.ones_like(t) if is_mask(t) else t)
        yield " with ragged masks", example.map(lambda t: _ragged(t) if is_mask(t) else t)


def is_mask(t: Tensor) -> bool:
    """Whether a tensor looks like a mask of rows: [batch, tokens], no floats, zeros and ones."""
    return t.dim() == 2 and not t.is_floating_point() and bool(((t == 0) | (t == 1)).all())


def _ragged(mask: Tensor) -> Tensor:
    """Ones, ending earlier sample by sample; the first sample stays full."""
    length = mask.size(1)
    ends = length - torch.arange(mask.size(0)) % max(length - 1, 1)
    return (torch.arange(length) < ends[:, None]).to(mask.dtype)


@torch.no_grad()
def verify(
    model: nn.Module, run: Callable[[Inputs], Any], example: Inputs, plain: bool = False, changed: str = ""
) -> tuple[float, str]:
    """Run a graph and its model on the example and its variants.

    Args:
        model: the original.
        run: calls its graph.
        example: what it was captured with.
        plain: the graph never takes torch's fused attention path; compare with the model that does not either.
        changed: what capture changed on purpose that moves the last bits.

    Returns:
        The largest difference, relative to the largest output, and its reason.

    Raises:
        CaptureError: they differ, by more than rounding where there is a reason for that; names the variant.
    """
    worst = 0.0
    for what, inputs in variants(example):
        wanted = _wanted(model, inputs, plain, optional=bool(what))
        if wanted is None:
            continue
        try:
            got = flatten(run(inputs))[0]
        except Exception as error:
            raise CaptureError(
                f"the captured graph of {type(model).__name__} fails on {inputs}{what}: {first_line(error)}"
            ) from error
        far = _difference(wanted, got)
        if not far <= (ROUNDING if changed else 0.0):
            raise CaptureError(
                f"the captured graph of {type(model).__name__} differs from the model on {inputs}{what} (largest difference"
                f" {far:.3g} of the largest output): its forward does something at trace time that it does not do per call."
                " Transform the submodule that holds the Linears instead, e.g. model.encoder ="
                " dendrofx.transform(model.encoder)"
            )
        worst = max(worst, far)
    return worst, changed if worst > 0 else ""


def _wanted(model: nn.Module, inputs: Inputs, plain: bool, optional: bool) -> list[Tensor] | None:
    """The model's tensors on a variant; None when it rejects that."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast and not plain)
    try:
        return flatten(inputs.call(model))[0]
    except Exception:
        if optional:
            return None
        raise
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _difference(wanted: list[Tensor], got: list[Tensor]) -> float:
    """The largest difference over the largest magnitude; infinity for other shapes or non-finite values elsewhere."""
    if [t.shape for t in wanted] != [t.shape for t in got]:
        return float("inf")
    worst = 0.0
    for a, b in zip(wanted, got, strict=True):
        if not a.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        a, b = a.double(), b.double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return float("inf")
        a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
        scale = float(a.abs().max()) if a.numel() else 0.0
        worst = max(worst, float((a - b).abs().max()) / max(scale, 1e-30) if a.numel() else 0.0)
    return worst
