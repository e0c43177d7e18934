"""The tail of a plan: what the samples of the calibration deviate by at most, beside the mean or the risk of the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dendrofx.guarantee.settings import Setting


@dataclass(frozen=True)
class TailPlan:
    """What became of `max_sample_deviation`: a condition on samples that were seen, no certificate.

    Attributes:
        most: that a sample was to deviate by, in any output that is covered.
        searched: the largest deviation of a sample that tolerances were set on, of `samples`; None where nothing is routed.
        tested: likewise of those that a budget was tested on, of `test_samples`; None where none was certified.

    Example:
        >>> print(TailPlan(0.2, searched=0.11, samples=240, tested=0.13, test_samples=300))
        largest deviation of a sample: 0.13 on 300 test samples, 0.11 on 240 that it was searched on (at most 0.2 wanted)
    """

    most: float = field(metadata={"least": 0})
    searched: float | None = field(default=None, metadata={"least": 0})
    samples: int = 0
    tested: float | None = field(default=None, metadata={"least": 0})
    test_samples: int = 0

    def of(self, setting: Setting, samples: tuple[int, ...] | None) -> TailPlan:
        """Return what a tested setting's samples deviate by at most.

        Args:
            setting: that was tested.
            samples: of a plan, see `Plan.samples`.
        """
        searched, found = setting.largest
        return self if samples is None else TailPlan(self.most, searched, samples[2] + samples[3], found, samples[4])

    def __str__(self) -> str:
        if self.searched is None:
            return ""
        wanted = f"at most {self.most:g} wanted"
        if self.tested is None:
            return (
                f"largest deviation of a sample: {self.searched:.3g} on {self.samples} calibration samples ({wanted})"
            )
        there = f"{self.searched:.3g} on {self.samples} that it was searched on"
        head = f"largest deviation of a sample: {self.tested:.3g} on {self.test_samples} test samples"
        if self.tested > self.most:
            return f"{head}, above the {self.most:g} wanted; {there}"
        return f"{head}, {there} ({wanted})"
