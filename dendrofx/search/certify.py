"""Certifying: the chosen setting as a certificate of a module."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dendrofx.guarantee.budget import Budget
from dendrofx.guarantee.certificate import Certificate
from dendrofx.guarantee.settings import Setting
from dendrofx.machine.capability import cpu_name
from dendrofx.values.covered import Covered
from dendrofx.values.fingerprint import state_fingerprint
from dendrofx.values.inputs import Inputs
from dendrofx.version import VERSION


def certified(
    module: nn.Module,
    walked: Sequence[Setting],
    chosen: Setting,
    budget: Budget,
    covered: Covered,
    inputs: str,
    model: str,
) -> Certificate:
    """Return the certificate of one accepted setting.

    Args:
        module: with the setting in force.
        walked: the tested settings, in order.
        chosen: one of the accepted.
        budget: the budget.
        covered: the outputs that it is about.
        inputs: fingerprint of the test samples.
        model: fingerprint of the original.
    """
    tested = chosen.tested
    assert tested is not None
    assert tested.accepted
    return Certificate(
        metric=budget.name,
        output=budget.named,
        alpha=budget.limit,
        delta=budget.delta,
        n=tested.n,
        losses=tested.losses,
        p_value=tested.p_value,
        test=budget.test,
        step=next(i for i, s in enumerate(walked) if s.tested is tested) + 1,
        steps=len(walked),
        thresholds=dict(chosen.tolerances),
        easy_share=max(chosen.easy_share, 1 / max(tested.n, 1)),
        model=model,
        module=state_fingerprint(module),
        inputs=inputs,
        dendrofx=VERSION,
        torch=torch.__version__,
        machine=cpu_name(),
        by_output=dict(zip(covered.covered, tested.by_output, strict=True)) if len(covered.places) > 1 else {},
    )


def warn_of_duplicates(test: Sequence[Inputs]) -> None:
    """Warn where test samples occur more than once: they say less than as many different ones."""
    seen = Counter(_digest([t[i] for t in b.carrying]) for b in test if _cut(b) for i in range(b.samples))
    again = sum(n - 1 for n in seen.values())
    if again:
        warnings.warn(
            f"{again} of {sum(seen.values())} test samples are copies of others: the confidence of the certificate takes samples"
            " that are drawn apart; drop copies, unless later calls repeat samples alike",
            stacklevel=3,
        )


def _cut(batch: Inputs) -> bool:
    """Return whether its samples can be told apart: they can, unless it is one sample of tensors of several sizes."""
    return all(t.dim() > 0 and t.size(0) == batch.samples for t in batch.carrying)


def _digest(tensors: Sequence[Tensor]) -> bytes:
    digest = hashlib.sha1(usedforsecurity=False)
    for tensor in tensors:
        digest.update(
            tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
    return digest.digest()
