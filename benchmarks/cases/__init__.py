"""The cases: a model, its calibration batches and its test rows. One file per case."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.cases.case import Case, CaseOptions, CaseUnavailableError
from benchmarks.cases.digits import digits
from benchmarks.cases.tiara import tiara
from benchmarks.cases.wide import wide

CASES: dict[str, Callable[[CaseOptions], Case]] = {"digits": digits, "tiara": tiara, "wide": wide}

__all__ = ["CASES", "Case", "CaseOptions", "CaseUnavailableError"]
