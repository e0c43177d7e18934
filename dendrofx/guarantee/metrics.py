"""Losses in [0, 1]: how far one sample's output is from the original's, in the terms of a budget.

flip          0/1: the decision is another: the largest of several logits, the sign of a single one
deviation     relative L2 distance, clipped to 1
exceeds(x)    0/1: the deviation is above x
cosine        (1 - cosine similarity) / 2, for embeddings
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.graph.show import first_line
from dendrofx.runtime.model_scores import flat_rows
from dendrofx.values.measure import EPS, deviation

# From the original's output and another, each [N, ...], to losses f64[N].
Metric = Callable[[Tensor, Tensor], Tensor]
# Standard deviation of the logarithm of what samples deviate by that are alike.
ALIKE = 0.5
ROUNDING = 1e-9  # of a metric in floating point
# Where a budget says nothing about distances, the mean deviation that choosing starts from; it tries a quarter to four times that.
USUAL_DEVIATION = 0.1


@dataclass(frozen=True)
class Measure:
    """What a budget knows of its metric.

    Attributes:
        loss: the metric.
        is_binary: whether its losses are 0 or 1.
        deviation: the mean deviation that is about as much as a limit of the mean loss.
        beyond: the deviation above which a sample is lost, where the metric is that.
    """

    loss: Metric
    is_binary: bool
    deviation: Callable[[float], float] = lambda limit: USUAL_DEVIATION
    beyond: float | None = None


def decisions(output: Tensor) -> Tensor:
    """Return i64[N, ...]: the index of the largest of the last axis; of a single logit, whether it is above 0."""
    if output.dim() == 1 or output.size(-1) == 1:
        return (flat_rows(output) > 0).long()
    return flat_rows(output.argmax(-1))


def flips(reference: Tensor, output: Tensor) -> Tensor:
    """Return 1 where any decision of a sample is another, or where its output is not finite and the reference is."""
    broken = flat_rows(reference).isfinite().all(1) & ~flat_rows(output).isfinite().all(1)
    return ((decisions(reference) != decisions(output)).any(1) | broken).double()


def relative_distance(reference: Tensor, output: Tensor) -> Tensor:
    """Return the relative L2 distance of the flattened sample, not clipped."""
    return deviation(flat_rows(reference), flat_rows(output))


def clipped_deviation(reference: Tensor, output: Tensor) -> Tensor:
    """Return the relative L2 distance of the flattened sample, at most 1."""
    return relative_distance(reference, output).clamp_max(1.0)


def half_cosine_distance(reference: Tensor, output: Tensor) -> Tensor:
    """Return (1 - cos) / 2 of the flattened samples; two zero vectors are alike."""
    a, b = flat_rows(reference).double(), flat_rows(output).double()
    cosine = F.cosine_similarity(a, b, dim=1, eps=EPS)
    both_zero = (a.norm(dim=1) <= EPS) & (b.norm(dim=1) <= EPS)
    loss = torch.where(both_zero, 0.0, (1 - cosine.clamp(-1, 1)) / 2)
    return loss.nan_to_num(nan=1.0)


_NAMED = {
    "flip": Measure(flips, True),
    "deviation": Measure(clipped_deviation, False, lambda limit: limit),
    "cosine": Measure(
        half_cosine_distance, False, lambda limit: 2 * float(limit**0.5)
    ),  # about half the squared deviation
}


def measure_of(metric: str | Metric) -> Measure:
    """Return what is known of a metric, by its name or of one of the caller's.

    Raises:
        InputError: no such metric.
    """
    if not isinstance(metric, str):
        return Measure(metric, False)
    if metric in _NAMED:
        return _NAMED[metric]
    if (found := re.fullmatch(r"exceeds\(([0-9.eE+-]+)\)", metric)) is not None:
        try:
            limit = float(found[1])
        except ValueError:
            limit = -1.0
        if 0 < limit < float("inf"):
            return Measure(_beyond(limit), True, lambda share: mean_of_tail(limit, share), limit)
    raise InputError(
        f"metric {metric!r} is none of 'flip', 'deviation', 'exceeds(0.05)' and 'cosine'; pass a function of (reference, output)"
        " that returns a loss in [0, 1] per sample for any other"
    )


def mean_of_tail(limit: float, share: float) -> float:
    """Return the mean of deviations of which a share lies above a limit, at most that limit.

    That of an exponential tail, `P(d > limit) = exp(-limit / mean)`: gates cut off the far end, few samples stand out.
    """
    return limit / max(-math.log(share), 1.0)


def _beyond(limit: float) -> Metric:
    return lambda reference, output: (relative_distance(reference, output) > limit).double()


def expected_beyond(far: Tensor, limit: float) -> Tensor:
    """Return the chance of samples like these to deviate by more than a limit, from what each of them deviates by.

    Few samples lie beyond, and many settings have none there: this tells those that came near from those that did not.

    Args:
        far: f64[N, outputs].
        limit: above 0.
    """
    steps = (far.clamp_min(EPS).log() - math.log(limit)) / ALIKE
    chance: Tensor = torch.special.ndtr(steps)
    return chance


def users_metric(name: str, metric: Metric) -> Metric:
    """Have a metric of the caller's work on copies, which it may write to, and say which one failed on what."""

    def on_copies(reference: Tensor, output: Tensor) -> Tensor:
        try:
            return metric(reference.clone(), output.clone())
        except Exception as error:
            raise InputError(f"metric {name} failed on outputs {tuple(output.shape)}: {first_line(error)}") from error

    return on_copies


def checked_losses(name: str, losses: object, samples: int) -> Tensor:
    """Return what a metric gave as f64[samples] in [0, 1].

    Raises:
        InputError: it is NaN, outside [0, 1], or has another shape.
    """
    loss = torch.as_tensor(losses).detach().double()
    if loss.shape != (samples,):
        raise InputError(f"metric {name} returned {tuple(loss.shape)} for {samples} samples: return one loss each")
    if bool(loss.isnan().any()):
        raise InputError(f"metric {name} gave NaN for sample {int(loss.isnan().nonzero()[0])}: return losses in [0, 1]")
    if bool((outside := (loss < -ROUNDING) | (loss > 1 + ROUNDING)).any()):
        where = int(outside.nonzero()[0])
        raise InputError(f"metric {name} gave {float(loss[where]):.4g} for sample {where}: losses must be in [0, 1]")
    return loss.clamp(0.0, 1.0)
