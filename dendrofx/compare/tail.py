"""The tail of a table: how far single samples are off, in the terms of what was asked for.

budget exceeds(0.05)       > 5 %      the share of the test samples that deviate by more
max_sample_deviation=0.2   largest    the largest deviation of a test sample
any other                  p99        the 99th percentile of the deviation
"""

from __future__ import annotations

from dendrofx.compare.prepare import Prepared
from dendrofx.compare.quality import Quality
from dendrofx.compare.text import deviation, number


def tail_head(prepared: Prepared) -> str:
    """Return the head of the column."""
    budget = prepared.asked.budget
    if budget is not None and budget.beyond is not None:
        return f"> {100 * budget.beyond:.3g} %"
    return "p99" if prepared.asked.most is None else "largest"


def tail_figure(prepared: Prepared, quality: Quality) -> str:
    """Return a row's figure in it."""
    budget = prepared.asked.budget
    if budget is not None and budget.beyond is not None:
        return "-" if quality.loss is None else f"{100 * quality.loss:.2g} %"
    return deviation(quality.p99 if prepared.asked.most is None else quality.max)


def tail_asked(prepared: Prepared) -> str:
    """Say what single samples were held to, behind the budget; nothing where they were not."""
    return "" if prepared.asked.most is None else f", no calibration sample above {100 * prepared.asked.most:.3g} %"


def tail_reached(prepared: Prepared, quality: Quality) -> str:
    """Say what became of that on the test samples."""
    if prepared.asked.most is None:
        return ""
    return f"; largest deviation of a test sample {quality.max:.2e}, at most {number(prepared.asked.most)} on calibration samples"
