"""What one call on live or on distinct rows spared: plain functions that TorchScript compiles, for `forward_counted`."""

from typing import Dict, List

from dendrofx.runtime.attention import AttentionPlan
from dendrofx.runtime.live import LiveRows
from dendrofx.runtime.repeats import RowRuns


def count_live_linears(rows: LiveRows, linear_macs: int) -> Dict[str, int]:
    """Count what one call spared, for `forward_counted`.

    Args:
        rows: of this call.
        linear_macs: multiply-adds per row, of all Linears that run on live rows.

    Returns:
        rows and live_rows; executed_macs of those Linears, and original_macs of the same on all rows.
    """
    padded = rows.batch * rows.tokens
    executed = rows.index.size(0) * linear_macs
    return {"rows": padded, "live_rows": rows.live, "executed_macs": executed, "original_macs": padded * linear_macs}


def count_live_macs(
    rows: LiveRows,
    linear_macs: int,
    plans: List[AttentionPlan],
    pair_macs: List[int],
) -> Dict[str, int]:
    """Count what one call spared, attention included; see `count_live_linears`.

    Args:
        rows: of this call.
        linear_macs: as there.
        plans: of this call.
        pair_macs: per plan, multiply-adds of one query with one key, in all attentions that follow it.
    """
    counts = count_live_linears(rows, linear_macs)
    whole = rows.batch * rows.tokens * rows.tokens
    for plan, macs in zip(plans, pair_macs):
        pairs, form = 0, plan.forms[0]
        for chunks, size in zip(form.chunks, form.sizes):
            pairs += chunks * size * size
        counts["executed_macs"] += pairs * macs
        counts["original_macs"] += whole * macs
    return counts


def count_repeats(runs: RowRuns, macs: int, split_executed: int, split_original: int) -> Dict[str, int]:
    """Count what one call spared on distinct rows.

    Args:
        runs: of this call.
        macs: multiply-adds per row, of all products that run on these distinct rows.
        split_executed: those of the Linears that are split for these rows.
        split_original: those of the same Linears on all rows.

    Returns:
        rows and distinct_rows; executed_macs of what runs on distinct rows, and original_macs of the same on all rows.
    """
    executed, original = runs.distinct * macs + split_executed, runs.rows * macs + split_original
    return {
        "rows": runs.rows,
        "distinct_rows": runs.distinct,
        "executed_macs": executed,
        "original_macs": original,
    }
