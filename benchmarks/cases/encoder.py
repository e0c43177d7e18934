"""What the cases of sequence encoders share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from benchmarks.cases.options import CaseOptions
from benchmarks.models.encoder import pad
from dendrofx.compare.case import Case
from dendrofx.compare.samples import Sequences

CALIBRATION, TEST, QUICK_TEST = 256, 384, 64
CERTIFIED = 1024  # calibration samples where half of them test a budget
CALIBRATION_BATCH = 32
# Of the routed rows, and those that a case names for its own data.
ENCODER_BUDGETS = (0.01,)
BUDGETS = (0.01, 0.075)


def encoder_case(
    name: str,
    title: str,
    model: nn.Module,
    calibration: Sequence[Sequence[int]],
    test: Sequence[Sequence[int]],
    options: CaseOptions,
    budgets: tuple[float, ...] = ENCODER_BUDGETS,
    **fields: Any,  # noqa: ANN401  (those of Case)
) -> Case:
    """A case from token ids: of `calibration`, at least 256, and of `test`, used for nothing else. Padding is dead; both orders."""
    used = calibration[: CERTIFIED if options.certified else CALIBRATION]
    batches = [pad(used[i : i + CALIBRATION_BATCH]) for i in range(0, len(used), CALIBRATION_BATCH)]
    return Case(
        name,
        title,
        model,
        batches,
        Sequences(test[: QUICK_TEST if options.quick else TEST], pad),
        classes=options.decides,
        dead_rows="attention_mask",
        budgets=budgets[-1:] if options.quick else budgets,
        orders=("random", "sorted"),
        batch_sizes=(1, 8, 32, 128),
        quick_sizes=(8,),
        **fields,
    )
