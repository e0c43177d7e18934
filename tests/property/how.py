"""The ways a module is transformed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch

import dendrofx
from tests.property.calls import Call, Form, make, usual
from tests.property.draft import BATCH, DOCS, TOKENS, Draft
from tests.property.features.modules import HOOKED

MIXED = {BATCH: (4, 6, 8), TOKENS: (5, 6, 8), DOCS: (4, 5, 7)}
BATCHES = 160  # a fifth of them sets tolerances, and a batch may be a single sample


@dataclass(frozen=True)
class How:
    """One way.

    Attributes:
        data: "none", "example" or "calibration".
        deviation: of the budget; None for the default.
        form: of the example and, but for sizes where they are mixed, of the calibration batches.
    """

    data: str
    deviation: float | None
    light: bool
    decide: bool
    mixed: bool
    form: Form

    @staticmethod
    def draw(d: Draft) -> How:
        """One way for a draft: of every kind, more often one that its features matter to.

        Without data nothing is given that may be left out.
        """
        form = usual(d)
        weights = [4 if d.has(*HOOKED) else 1, 1, 6 if len(d.outputs) > 1 else 2]
        data = d.rng.choices(["none", "example", "calibration"], weights)[0]
        deviation = d.rng.choice([0, 0.05, 0.05] if data == "calibration" else [0, None])
        light, decide, mixed = (d.rng.random() < share for share in (0.75, 0.4, 0.5))
        if data == "none":
            form = replace(form, given={})
        return How(data, deviation, light, decide, mixed, form)

    def batches(self, d: Draft, generator: torch.Generator, count: int = BATCHES) -> list[Call]:
        """Calls as calibration has them, the first of the usual sizes."""
        sizes = [{n: _one_of(MIXED[n], generator) for n in MIXED} for _ in range(count - 1)]
        others = [replace(self.form, sizes=s) if self.mixed else self.form for s in sizes]
        return [make(d, form, generator) for form in [self.form, *others]]

    def options(self, d: Draft) -> dict[str, Any]:
        """What transform is called with beside data."""
        found: dict[str, Any] = {"budget": self.deviation, "decide": self.decide, "tune_seconds": 0}
        if self.light:
            found["light"] = dendrofx.LowRank(rank=4)
        if self.data != "none" and names_output(d) and "output" in inspect.signature(dendrofx.transform).parameters:
            found["output"] = d.main
        return found

    def __str__(self) -> str:
        sizes = ", ".join(f"{k} {v}" for k, v in self.form.sizes.items())
        light = "LowRank(4)" if self.light else "the ladder"
        mixed = ", mixed sizes" if self.mixed and self.data == "calibration" else ""
        return f"data: {self.data}{mixed} ({sizes}); max_deviation={self.deviation}, {light}, decide={self.decide}"


def _one_of(values: tuple[int, ...], generator: torch.Generator) -> int:
    return values[int(torch.randint(len(values), (), generator=generator))]


def names_output(d: Draft) -> bool:
    """Whether the output that the budget is for must be named, because another is not per sample."""
    return "loss" in d.outputs or "other" in d.outputs
