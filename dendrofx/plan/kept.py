"""What a plan keeps, in the terms of its budget."""

from __future__ import annotations

from typing import Any


def footer(plan: Any) -> list[str]:  # noqa: ANN401  (a Plan, which stands above)
    """Say what was kept, in the terms of the budget."""
    if plan.certificate is not None:
        return [str(plan.certificate)]
    if plan.budget:
        return [f"budget {plan.budget}: not certified, the outputs are the original's: {plan.refusal}"]
    if plan.max_deviation == 0:
        return ["nothing is approximated (budget 0)"]
    if not plan.routed:
        rounding = ", to rounding" * (any(s.status == "exact" for s in plan.sites) or plan.rows_left_out)
        return [f"nothing is routed: the outputs are the original's{rounding} (budget {plan.max_deviation:g})"]
    if plan.samples is None or plan.deviation is None:
        return [f"tolerances from the bound alone (no calibration data), max_deviation {plan.max_deviation:g}"]
    fit, gate, choose, tune = plan.samples[:4]
    return [
        f"mean deviation at most {plan.deviation:.4g} (95 % limit on {tune} calibration samples),"
        f" budget {plan.max_deviation:g}; {fit} samples fitted lights, {gate} gates, {choose} chose among them"
    ]
