"""`Budget`: what a user allows, in the user's own terms, and how sure they want to be of it.

    Budget("flip", limit=0.01)                        at most 1 % of the decisions change, at 95 % confidence
    Budget("exceeds(0.05)", 0.02, confidence=0.99)    at most 2 % of the samples deviate by more than 5 %, at 99 %

The promise, `P(risk <= limit) >= confidence`, is over the draw of the calibration samples. It takes them and the samples of later
calls to be exchangeable: drawn alike, in no telling order. Where samples come from one source (fragments of one sequence, sentences
of one document), sources must be drawn alike; samples of one source say less than as many of different ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.guarantee.bounds import Tail, binomial_p, hoeffding_bentkus_p, least_samples, samples_to_show
from dendrofx.guarantee.metrics import Measure, Metric, checked_losses, measure_of, users_metric
from dendrofx.values.covered import Covered, Named, cover, named_outputs

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?"
SHORT = re.compile(rf"(?P<metric>[^:]+):(?P<limit>{NUMBER})(?::(?P<confidence>{NUMBER}))?")
IN_WORDS = re.compile(
    r"(?P<metric>[^ ]+)(?: of (?:output|each of the outputs) (?P<output>.+))?"
    rf" at most (?P<limit>{NUMBER}) %, (?P<confidence>{NUMBER}) % confidence"
)


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
            measure_of(self.metric)
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
        """Read a budget from `METRIC:LIMIT:CONFIDENCE`, such as `flip:0.01:0.95`, or from its own text, `str(budget)`.

        The confidence may be left out. Of a metric of the caller's there is no text.

        Raises:
            InputError: anything else.
        """
        found = SHORT.fullmatch(text.strip()) or IN_WORDS.fullmatch(text.strip())
        if found is None:
            raise InputError(f"a budget is METRIC:LIMIT:CONFIDENCE, such as flip:0.01:0.95, got {text!r}")
        if found.re is SHORT:
            return Budget(found["metric"], float(found["limit"]), float(found["confidence"] or 0.95))
        limit, confidence = (round(float(found[name]) / 100, 12) for name in ("limit", "confidence"))
        names = found["output"].split(", ") if found["output"] else []
        outputs = [int(name) if name.isdigit() else name for name in names]
        return Budget(found["metric"], limit, confidence, (outputs[0] if len(outputs) == 1 else outputs) or None)

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
    def _measure(self) -> Measure:
        return measure_of(self.metric)

    @property
    def _tail(self) -> Tail:
        return binomial_p if self._measure.is_binary else hoeffding_bentkus_p

    @property
    def deviation(self) -> float:
        """A mean deviation that is about as much, for choosing what is worth testing; no promise rests on it."""
        return self._measure.deviation(self.limit)

    @property
    def beyond(self) -> float | None:
        """The deviation above which a sample is lost, of `exceeds(...)`; None of any other metric."""
        return self._measure.beyond if isinstance(self.metric, str) else None

    @property
    def test(self) -> Literal["binomial", "hoeffding-bentkus"]:
        """The test's name."""
        return "binomial" if self._measure.is_binary else "hoeffding-bentkus"

    @property
    def least(self) -> int:
        """The least samples that can show it."""
        return least_samples(self.limit, self.delta)

    def p_value(self, losses: float, n: int) -> float:
        """Return the p-value of "the risk is above the limit", from the sum of n losses."""
        return self._tail(losses, n, self.limit)

    def samples_to_show(self, risk: float) -> int | None:
        """Return the least samples that would show it at an observed risk; None at one that is not below the limit."""
        return samples_to_show(risk, self.limit, self.delta, self._tail)

    @property
    def named(self) -> Named:
        """The outputs that the caller named: one, several, or None."""
        return named_outputs(self.output)

    def cover(self, names: Sequence[str], tensors: Sequence[Tensor]) -> Covered:
        """Return the outputs that it is about, each of which must keep it.

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
        """Return the place of the only output that is covered.

        Raises:
            InputError: there are several.
        """
        if len(covered.places) > 1:
            raise InputError(
                f"the model has the outputs {', '.join(covered.covered)}: name the one that {self.name} is about, output='...'"
            )
        return covered.places[0]

    def losses(self, reference: Tensor, output: Tensor) -> Tensor:
        """Return the losses of one output, per sample: f64[N] in [0, 1].

        Raises:
            InputError: the user's metric fails, gives NaN, leaves [0, 1], or has another shape.
        """
        metric = self._measure.loss if isinstance(self.metric, str) else users_metric(self.name, self.metric)
        return checked_losses(self.name, metric(reference, output), len(reference))

    def __str__(self) -> str:
        return budget_text(self.name, self.named, self.limit, self.confidence)


def budget_text(metric: str, named: Named, limit: float, confidence: float) -> str:
    """Return a budget in words, as plans keep it."""
    of = "" if named is None else f" of output {named}"
    if isinstance(named, tuple):
        of = f" of each of the outputs {', '.join(map(str, named))}"
    return f"{metric}{of} at most {100 * limit:g} %, {100 * confidence:g} % confidence"


def read_budget(text: str) -> float | Budget:
    """Return the mean deviation or the budget to certify that a text states: `0.01`, `flip:0.01:0.95`, or `str(budget)`.

    Raises:
        InputError: it states neither.
    """
    try:
        return float(text)
    except ValueError:
        if ":" in text or " at most " in text:
            return Budget.parse(text)
    raise InputError(f"a budget is a mean deviation, 0.01, or METRIC:LIMIT:CONFIDENCE, flip:0.01:0.95; got {text!r}")
