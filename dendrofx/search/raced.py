"""Racing a rewritten model against the original, at every batch size."""

from __future__ import annotations

from collections.abc import Sequence

from dendrofx.errors import InputError
from dendrofx.plan.times import ModelTimes
from dendrofx.rewriting.module import RoutedModule
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.timer import Timer
from dendrofx.search.verify import judge, timing_batches
from dendrofx.values.inputs import Inputs


def raced_times(space: BlockSpace, module: RoutedModule, timer: Timer) -> tuple[ModelTimes, ...]:
    """Return the times of the rewritten model against the original, at every batch size."""
    data, example = space.subject.data, space.subject.example
    given: Sequence[Inputs] = [*data.choose, *data.tune] if data is not None else []
    if not given and example is not None:
        given = [example]
    times = []
    for size in space.tuning.sizes if given else ():
        batches = timing_batches(given, size)
        if not batches:
            raise InputError(f"batch_sizes: no calibration batch can be cut or repeated to {size} samples")
        times.append(judge(timer.models(space.subject.original, module, batches), size))
    return tuple(times)
