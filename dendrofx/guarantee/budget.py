"""`Budget`: what a user allows, in the user's own terms, and how sure they want to be of it.

    Budget("flip", limit=0.01)                        at most 1 % of the decisions change, at 95 % confidence
    Budget("exceeds(0.05)", 0.02, confidence=0.99)    at most 2 % of the samples deviate by more than 5 %, at 99 %

The promise, `P(risk <= limit) >= confidence`, is over the draw of the calibration samples. It takes them and the samples of later
calls to be exchangeable: drawn alike, in no telling order. Where samples come from one source (fragments of one sequence, sentences
of one document), sources must be drawn alike; samples of one source say less than as many of different ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.graph.show import first_line
from dendrofx.guarantee.bounds import binomial_p, hoeffding_bentkus_p, least_samples
from dendrofx.guarantee.metrics import Metric, named_metric
from dendrofx.values.covered import Covered, Named, cover, named_outputs

ROUNDING = 1e-9  # of a metric in floating point
# Where a budget says nothing about distances, the mean deviation that choosing starts from; it tries a quarter to four times that.
USUAL_DEVIATION = 0.1


@dataclass(frozen=True)
class Budget:
    """A limit of the risk, the mean loss per sample against the original model's outputs. No labels.

    Args:
        metric: "flip", "deviation", "exceeds(0.05)" or "cosine" (see `metrics.py`), or a function of the original's output and
            another, each [N, ...], that returns f[N] losses in [0, 1].
        limit: alpha, in (0, 1).
        confidence: 1 - delta, in (0, 1).
        output: which output it is about, by name (`"logits"`) or place, or several of them, for each of which it must hold; by
            default the only one, or the one named logits, and for distances at block scope each of them.

    Raises:
        InputError: a limit or confidence outside (0, 1), no such metric, or an output that is neither name nor place.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches, budget=dendrofx.Budget("flip", limit=0.01))
        >>> print(routed.plan.certificate)
    """

    metric: str | Metric
    limit: float
    confidence: float = 0.95
    output: str | int | Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.metric, str):
            named_metric(self.metric)
        elif not callable(self.metric):
            raise InputError(f"metric is a name or a function of (reference, output), got {self.metric!r}")
        object.__setattr__(self, "output", named_outputs(self.output))
        for name, value in (("limit", self.limit), ("confidence", self.confidence)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-9 <= value <= 1 - 1e-9:
                raise InputError(
                    f"{name} must be between 0 and 1, got {value!r}; limit=0.01, confidence=0.95 for 1 % at 95 %"
                )

    @staticmethod
    def parse(text: str) -> Budget:
        """From `METRIC:ALPHA:CONFIDENCE`, such as `flip:0.01:0.95`; the confidence may be left out.

        Raises:
            InputError: anything else.
        """
        parts = text.split(":")
        try:
            limit, confidence = float(parts[1]), float(parts[2]) if len(parts) > 2 else 0.95
        except (IndexError, ValueError):
            parts = []
        if len(parts) not in (2, 3):
            raise InputError(f"a budget is METRIC:ALPHA:CONFIDENCE, such as flip:0.01:0.95, got {text!r}")
        return Budget(parts[0], limit, confidence)

    @property
    def name(self) -> str:
        """The metric's."""
        if isinstance(self.metric, str):
            return self.metric
        return f"{getattr(self.metric, '__name__', type(self.metric).__name__)} (yours)"

    @property
    def delta(self) -> float:
        """The chance that the promise does not hold."""
        return round(1 - self.confidence, 12)

    @property
    def is_decision(self) -> bool:
        """Whether it is about decisions."""
        return self.metric == "flip"

    @property
    def _metric(self) -> tuple[Metric, bool]:
        return named_metric(self.metric) if isinstance(self.metric, str) else (self.metric, False)

    @property
    def deviation(self) -> float:
        """A mean deviation that is about as much, for choosing what is worth testing; no promise rests on it."""
        if self.name == "deviation":
            return self.limit
        if self.name == "cosine":  # 1 - cos is about half the squared deviation
            return 2 * float(self.limit**0.5)
        if (found := re.fullmatch(r"exceeds\((.+)\)", self.name)) is not None:
            return float(found[1]) / 2
        return USUAL_DEVIATION

    @property
    def test(self) -> Literal["binomial", "hoeffding-bentkus"]:
        """The test's name."""
        return "binomial" if self._metric[1] else "hoeffding-bentkus"

    @property
    def least(self) -> int:
        """The least samples that can show it."""
        return least_samples(self.limit, self.delta)

    def p_value(self, losses: float, n: int) -> float:
        """Of "the risk is above the limit", from the sum of n losses."""
        tail: Callable[[float, int, float], float] = binomial_p if self._metric[1] else hoeffding_bentkus_p
        return tail(losses, n, self.limit)

    def samples_to_show(self, risk: float) -> int | None:
        """The least samples that would show it at an observed risk; None at one that is not below the limit."""
        if risk >= self.limit:
            return None
        low, high = 1, self.least
        while self.p_value(risk * high, high) > self.delta:
            low, high = high, 2 * high
            if high > 10**8:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.p_value(risk * middle, middle) <= self.delta else (middle, high)
        return high

    @property
    def named(self) -> Named:
        """The outputs that the caller named: one, several, or None."""
        return named_outputs(self.output)

    def cover(self, names: Sequence[str], tensors: Sequence[Tensor]) -> Covered:
        """The outputs that it is about, each of which must keep it.

        Args:
            names: of all tensors of the model's output.
            tensors: these.

        Raises:
            InputError: no such output, or several where the metric is about one and none is named.
        """
        found = cover(names, tensors, self.named)
        if self.output is not None or len(found.places) == 1:
            return found
        if "logits" in found.covered:
            return cover(names, tensors, "logits")
        if self.is_decision or not isinstance(self.metric, str):
            self.single(found)
        return found

    def single(self, covered: Covered) -> int:
        """The place of the only output that is covered.

        Raises:
            InputError: there are several.
        """
        if len(covered.places) > 1:
            raise InputError(
                f"the model has the outputs {', '.join(covered.covered)}: name the one that {self.name} is about, output='...'"
            )
        return covered.places[0]

    def losses(self, reference: Tensor, output: Tensor) -> Tensor:
        """Per sample, f64[N] in [0, 1], of one output.

        Raises:
            InputError: the user's metric gives NaN, leaves [0, 1], or has another shape.
        """
        named = isinstance(self.metric, str)
        found = self._metric[0](reference, output) if named else self._users(reference, output)
        loss = torch.as_tensor(found).detach().double()
        if loss.shape != (len(reference),):
            raise InputError(
                f"metric {self.name} returned {tuple(loss.shape)} for {len(reference)} samples: return one loss each"
            )
        if bool(loss.isnan().any()):
            raise InputError(
                f"metric {self.name} gave NaN for sample {int(loss.isnan().nonzero()[0])}: return losses in [0, 1]"
            )
        if bool((outside := (loss < -ROUNDING) | (loss > 1 + ROUNDING)).any()):
            where = int(outside.nonzero()[0])
            raise InputError(
                f"metric {self.name} gave {float(loss[where]):.4g} for sample {where}: losses must be in [0, 1]"
            )
        return loss.clamp(0.0, 1.0)

    def _users(self, reference: Tensor, output: Tensor) -> Any:  # noqa: ANN401  (checked by the caller)
        """What the caller's metric gives, on copies that it may write to."""
        try:
            return self._metric[0](reference.clone(), output.clone())
        except Exception as error:
            raise InputError(
                f"metric {self.name} failed on outputs {tuple(output.shape)}: {first_line(error)}"
            ) from error

    def __str__(self) -> str:
        return budget_text(self.name, self.named, self.limit, self.confidence)


def budget_text(metric: str, named: Named, limit: float, confidence: float) -> str:
    """A budget in words, as plans keep it."""
    of = "" if named is None else f" of output {named}"
    if isinstance(named, tuple):
        of = f" of each of the outputs {', '.join(map(str, named))}"
    return f"{metric}{of} at most {100 * limit:g} %, {100 * confidence:g} % confidence"
