"""The cases: a model, its calibration batches and its test samples. One file per case."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.cases.antiberty import antiberty
from benchmarks.cases.digits import digits
from benchmarks.cases.minilm import minilm
from benchmarks.cases.options import CaseOptions, CaseUnavailableError
from benchmarks.cases.rxnmapper import rxnmapper
from benchmarks.cases.tiara import tiara
from benchmarks.cases.wide import wide
from dendrofx.compare.case import Case

CASES: dict[str, Callable[[CaseOptions], Case]] = {
    "digits": digits,
    "tiara": tiara,
    "wide": wide,
    "minilm": minilm,
    "antiberty": antiberty,
    "rxnmapper": rxnmapper,
}

__all__ = ["CASES", "Case", "CaseOptions", "CaseUnavailableError"]
