"""What one call of a routed site counts: rows per branch, scores near the tolerance, multiply-adds. TorchScript compiles it.

Nothing is stored in the module: `forward_counted` returns the counts beside the output, so calls on several threads do not race.
"""

from typing import Dict, List, Tuple

import torch
from torch import Tensor

from dendrofx.runtime.kernels import padded_rows
from dendrofx.runtime.live import LiveRows
from dendrofx.runtime.routing import Split


def light_row_count(split: Split, gate_reads_light: bool) -> int:
    """Count the rows that the light branch ran on."""
    if gate_reads_light:
        return split.rows
    if split.hard_rows == split.rows:
        return 0
    return split.rows - split.hard_rows if split.easy_only else split.rows


def executed(rows: int, macs: int, padded_macs: int) -> int:
    """Return the multiply-adds that a branch runs for `rows` rows, padding rows included."""
    return rows * macs + (padded_rows(rows) - rows) * padded_macs


def millionths(score: float) -> int:
    """Return a score in millionths, as counts are whole numbers: at most 1e18."""
    # no whole number: torch 2.13 writes a whole float of that size to a file as an int
    return int(min(max(score, 0.0), 999999999999.5) * 1e6)


def near_rows(score: Tensor, tolerance: Tensor, margin: float) -> Tensor:
    """Tell of f32[N] scores which lie so near to the tolerance that their row's route may differ in another batch, bool[N].

    None at tolerance 0 and at infinity.
    """
    return (score - tolerance).abs().lt(margin * tolerance)


def largest_and_near(score: Tensor, tolerance: Tensor, margin: float) -> Tuple[float, int]:
    """Return the largest of f32[N] scores, NaN and infinity left out, and how many are `near_rows`."""
    if score.size(0) == 0:
        return 0.0, 0
    largest, limit = float(score.max().item()), float(tolerance.item())
    # each operator takes 2 us, and a whole call perhaps 300: mostly one reduction tells that no row is near, or two do
    apart = 1.001 * margin * limit
    if limit - largest > apart:
        return largest, 0
    near = 0
    if not float(torch.dist(score, tolerance, float("-inf")).item()) > apart:
        near = int(near_rows(score, tolerance, margin).sum().item())
    if not largest < float("inf"):  # NaN and infinity
        largest = float(score.nan_to_num(0.0, 0.0, 0.0).max().item())
    return largest, near


def count_rows(
    split: Split,
    score: Tensor,
    tolerance: Tensor,
    margin: float,
    gate_reads_light: bool,
    costs: List[List[int]],
    original_macs: int,
) -> Dict[str, int]:
    """Count what one call of a site did.

    Args:
        split: the site's split in this call.
        score: f32[N] of this call.
        tolerance: f32[].
        margin: the gate's relative rounding margin.
        gate_reads_light: the light branch runs on every row, before the gate.
        costs: a `RowCost` each of gate, light and full.
        original_macs: multiply-adds per row of the original block.

    Returns:
        rows, hard_rows, near_rows, light_rows; largest_score_millionths; the multiply-adds executed, padding included, by
        gate_macs, light_macs, full_macs, beside original_macs for the same rows; and gate_work, light_work, full_work, the same
        weighted by their operands' bits / 32.
    """
    largest, near = largest_and_near(score, tolerance, margin)
    light_rows = light_row_count(split, gate_reads_light)
    gate, light, full = costs[0], costs[1], costs[2]
    return {
        "rows": split.rows,
        "hard_rows": split.hard_rows,
        "near_rows": near,
        "light_rows": light_rows,
        "largest_score_millionths": millionths(largest),
        "gate_macs": executed(split.rows, gate[0], gate[2]),
        "light_macs": executed(light_rows, light[0], light[2]),
        "full_macs": executed(split.hard_rows, full[0], full[2]),
        "original_macs": split.rows * original_macs,
        "gate_work": executed(split.rows, gate[1], gate[3]),
        "light_work": executed(light_rows, light[1], light[3]),
        "full_work": executed(split.hard_rows, full[1], full[3]),
    }


def count_light(rows: Tensor, cost: List[int], original_macs: int) -> Dict[str, int]:
    """Count what one call of a site without gate and full branch did; see `count_rows`.

    Args:
        rows: f32[N, in] of this call.
        cost: a `RowCost` of the light branch.
        original_macs: multiply-adds per row of the original block.
    """
    n = rows.size(0)
    return {
        "rows": n,
        "hard_rows": 0,
        "near_rows": 0,
        "light_rows": n,
        "largest_score_millionths": 0,
        "gate_macs": 0,
        "light_macs": executed(n, cost[0], cost[2]),
        "full_macs": 0,
        "original_macs": n * original_macs,
        "gate_work": 0,
        "light_work": executed(n, cost[1], cost[3]),
        "full_work": 0,
    }


def rows_again(live: LiveRows, rows: int) -> int:
    """Count the rows at the end that are the last live one once more, for a kernel's sake, where a site takes a row per token."""
    return rows - live.live if rows == live.index.size(0) else 0


def of_live_rows(
    counts: Dict[str, int],
    live: LiveRows,
    split: Split,
    score: Tensor,
    tolerance: Tensor,
    margin: float,
    gate_reads_light: bool,
) -> Dict[str, int]:
    """Leave rows that are there again out of what `count_rows` counted; they stay in the multiply-adds, the original's too."""
    again = rows_again(live, split.rows)
    if again > 0:
        scores = score[split.rows - again :]
        hard = again - int((scores < tolerance).sum().item())
        kept = Split(split.hard, split.easy, split.rows - again, split.hard_rows - hard, split.easy_only)
        counts["rows"], counts["hard_rows"] = kept.rows, kept.hard_rows
        counts["near_rows"] -= int(near_rows(scores, tolerance, margin).sum().item())
        counts["light_rows"] = light_row_count(kept, gate_reads_light)
    return counts


def of_live_light(counts: Dict[str, int], live: LiveRows) -> Dict[str, int]:
    """Leave rows that are there again out of what `count_light` counted; see `of_live_rows`."""
    again = rows_again(live, counts["rows"])
    counts["rows"] -= again
    counts["light_rows"] -= again
    return counts


def no_counts() -> Dict[str, Dict[str, int]]:
    """Return the counts of a module without routed sites."""
    empty: Dict[str, Dict[str, int]] = {}
    return empty
