"""Calibration on a dataset that is too large for this process: samples of it, and statistics of all of it.

    1  drawing    every sample is dealt to a set by a hash of itself; of each set some are kept here      one pass
    2  moments    second moments of what each site's Linears take in, of all fitting samples              one pass per search
    3  scores     how many of the choosing samples' rows have which score                                 one pass per walk

Light branches are fitted to 2, tolerances are tried on a grid by 3; gates are fitted, and all is chosen, tuned and tested, on
samples of 1. What is added up does not depend on how the dataset is cut, or on who counts: to rounding it is what one machine gets.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from dendrofx.errors import DendrofxError, InputError
from dendrofx.graph.pickling import packed
from dendrofx.machine.progress import progress
from dendrofx.scale import on_ray
from dendrofx.scale.local import run_here
from dendrofx.scale.parts import check_columns, row_groups
from dendrofx.scale.tally import Drawing, Measuring, Reading
from dendrofx.statistics.moments import Moments
from dendrofx.statistics.quantiles import ScoreCounts
from dendrofx.statistics.sample import Sample
from dendrofx.values.calibration import LEAST_WITH_TEST, SHARES, TEST_SHARES
from dendrofx.values.dealt import Dealt
from dendrofx.values.fingerprint import LENGTH
from dendrofx.values.inputs import Inputs
from dendrofx.values.signature import signature_of

KEPT = 8192  # samples of all sets together
BATCH = 256  # samples of a batch, as `map_batches` runs them


def is_dataset(calibration: object) -> bool:
    """Tell a Ray Dataset, or a path of Parquet files, from an iterable of batches."""
    return isinstance(calibration, str | Path) or on_ray.is_dataset(calibration)


def dealt_dataset(dataset: Any, model: nn.Module, seed: int, certified: bool, kept: int | None = None) -> Dealt:  # noqa: ANN401
    """Draw a dataset's samples; the columns that are read have the names of the model's parameters.

    Args:
        dataset: a Ray Dataset, whose blocks are read by as many actors as the cluster has cores but one; or the path of a Parquet
            file or a folder of them, read here.
        model: that takes them.
        seed: of the deal.
        certified: whether a set to test on is wanted.
        kept: most samples of all sets together; `KEPT` by default.

    Raises:
        InputError: a column is missing, or is no tensor; or too few samples.
    """
    here = isinstance(dataset, str | Path)
    schema = None if here else dataset.schema()
    parts, names = row_groups(dataset) if here else (dataset, [] if schema is None else list(schema.names))
    reading = Reading(_taken(model, names, dataset), _floats(model), TEST_SHARES if certified else SHARES, seed)
    source = Source(parts, reading, here)
    last = 1.0 - sum(reading.shares)
    most = [round(share * (kept or KEPT)) for share in (*reading.shares, last)]
    draw = source.added("drawing samples", Drawing, {"most": most})
    if draw is None or sum(s.seen for s in draw.sets) < LEAST_WITH_TEST or not all(len(s.keys) for s in draw.sets):
        raise InputError(
            f"the calibration {_called(dataset)} has too few samples, or too few that differ, for {len(most)} disjoint sets: a few"
            " hundred are of use"
        )
    seen = sum(s.seen for s in draw.sets)
    fingerprint = hashlib.sha256(f"{seen}:{draw.checksum}".encode()).hexdigest()[:LENGTH]
    return Dealt(tuple(_batches(s) for s in draw.sets), draw.sets[0].seen, fingerprint, source)


@dataclass(frozen=True)
class Source:
    """A dataset, and what reads it: `Statistics` of all of it.

    Attributes:
        parts: row groups, or a Ray Dataset.
        reading: of its columns.
        here: whether this process reads it, instead of Ray.
    """

    parts: Any
    reading: Reading
    here: bool

    def moments(self, gm: fx.GraphModule, sites: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[Moments, ...]]:
        """Return the moments of what each site's Linears take in, on all fitting samples."""
        asked = {"module": pickle.dumps(packed(gm)), "asked": "moments", "sites": dict(sites)}
        return self._measured("adding up moments", asked)

    def scores(self, gm: fx.GraphModule) -> dict[str, ScoreCounts]:
        """Return the counts of each routed site's scores, on all choosing samples."""
        found = self._measured("counting scores", {"module": pickle.dumps(packed(gm)), "asked": "scores", "sites": {}})
        return {site: counts for site, (counts,) in found.items()}

    def _measured(self, label: str, asked: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
        threads = torch.get_num_threads() if self.here else 1
        total = self.added(label, Measuring, {**asked, "threads": threads})
        return dict(total.values)

    def added(self, label: str, make: type, asked: dict[str, Any]) -> Any:  # noqa: ANN401  (what it makes of a part)
        """Return the sum of what a worker makes of each part; None where it makes nothing of any."""
        known = len(self.parts) if isinstance(self.parts, Sequence) else None
        given = {"reading": self.reading, **asked}
        if self.here:
            made = run_here(make(**given), self.parts, 1)
        else:
            made = on_ray.run_on_ray(self.parts, given, on_ray.free_cores(), 1, make)
        total, count = None, 0
        for one in progress(made, label, "part", known):
            total, count = one if total is None else total if one is None else _sum(total, one), count + 1
        if known is not None and count != known:
            raise DendrofxError(f"of {known} parts {count} came back: run it again")
        return total


def _sum(total: Any, one: Any) -> Any:  # noqa: ANN401
    try:
        return total + one
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"two parts of the calibration hold samples of other sizes: pad them to one ({error})"
        ) from error


def _taken(model: nn.Module, names: Sequence[str], dataset: object) -> tuple[str, ...]:
    """Return the columns that the model takes; raise `InputError` where it needs others."""
    parameters = signature_of(model).parameters.values()
    kinds = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p.name for p in kinds if p.default is p.empty]
    check_columns(names, required, f"the calibration {_called(dataset)}", type(model).__name__, ", ".join(required))
    return tuple(p.name for p in kinds if p.name in names)


def _floats(model: nn.Module) -> str:
    """Return the dtype of a model's weights."""
    found = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return str(found).removeprefix("torch.")


def _called(dataset: object) -> str:
    return str(dataset) if isinstance(dataset, str | Path) else "Dataset"


def _batches(sample: Sample) -> list[Inputs]:
    """Return the samples of a set in batches."""
    return [
        Inputs((), tuple((name, column[at : at + BATCH]) for name, column in sample.columns.items()))
        for at in range(0, len(sample.keys), BATCH)
    ]
