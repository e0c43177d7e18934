"""Read a budget as it is written on a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dendrofx.errors import InputError

if TYPE_CHECKING:
    from dendrofx.guarantee.budget import Budget


def read_budget(text: str) -> float | Budget:
    """Return a mean deviation, or a budget to certify; raise `InputError` for what is neither."""
    if ":" in text:
        from dendrofx.guarantee.budget import Budget  # brings torch

        return Budget.parse(text)
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"--budget is a mean deviation, 0.01, or METRIC:LIMIT:CONFIDENCE, flip:0.01:0.95; got {text!r}"
        ) from None
