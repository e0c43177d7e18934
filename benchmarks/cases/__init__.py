"""The cases: a model, its calibration batches and its test samples. One file per case, imported when the case is built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from benchmarks.cases.options import CaseOptions
from benchmarks.models.packages import CaseUnavailableError

if TYPE_CHECKING:
    from dendrofx.compare.case import Case

__all__ = ["CASES", "CaseOptions", "CaseUnavailableError"]


def _build(name: str, options: CaseOptions) -> Case:
    build: Callable[[CaseOptions], Case] = getattr(import_module(f"benchmarks.cases.{name}"), name)
    return build(options)


CASES: dict[str, Callable[[CaseOptions], Case]] = {
    name: partial(_build, name) for name in ("digits", "tiara", "wide", "minilm", "antiberty", "rxnmapper")
}
