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


def _build(file: str, function: str, options: CaseOptions) -> Case:
    build: Callable[[CaseOptions], Case] = getattr(import_module(f"benchmarks.cases.{file}"), function)
    return build(options)


CASES: dict[str, Callable[[CaseOptions], Case]] = {
    **{name: partial(_build, name, name) for name in ("digits", "tiara", "wide", "minilm", "antiberty", "rxnmapper")},
    "digits-decisions": partial(_build, "digits", "decisions"),
    "padding": partial(_build, "padding", "padding"),
    "ranker": partial(_build, "ranker", "towers"),
    "ranker-dlrm": partial(_build, "ranker", "dlrm"),
    "ranker-dcn": partial(_build, "ranker", "dcn"),
}
