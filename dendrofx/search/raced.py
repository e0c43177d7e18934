"""Racing a rewritten model against the original, at every batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import fx

from dendrofx.errors import InputError
from dendrofx.plan.times import ModelTimes
from dendrofx.rewriting.module import RoutedModule
from dendrofx.search.blocks import BlockSpace
from dendrofx.search.timer import Timer
from dendrofx.search.verify import judge, lost, timing_batches
from dendrofx.values.inputs import Inputs

INTERRUPTED = "tuning was interrupted before the rewritten model was timed against the original"


def raced(
    original: fx.GraphModule, module: fx.GraphModule, given: Sequence[Inputs], sizes: Sequence[int], timer: Timer
) -> tuple[ModelTimes, ...]:
    """Return the times of a module against the original's, at every batch size, on batches that are cut from those given.

    Raises:
        InputError: no such batch can be cut.
    """
    times = []
    for size in sizes:
        batches = timing_batches(given, size)
        if not batches:
            raise InputError(f"batch_sizes: no calibration batch can be cut or repeated to {size} samples")
        times.append(judge(timer.models(original, module, batches), size))
    return tuple(times)


def raced_blocks(space: BlockSpace, module: RoutedModule, timer: Timer) -> tuple[ModelTimes, ...]:
    """Return the times of a model with routed blocks; none where there is nothing to call it with."""
    data, example = space.subject.data, space.subject.example
    given: Sequence[Inputs] = [*data.choose, *data.tune] if data is not None else []
    if not given and example is not None:
        given = [example]
    return raced(space.subject.original, module, given, space.tuning.sizes if given else (), timer)


def verdict(
    race: Callable[[], tuple[ModelTimes, ...]], timer: Timer, min_speedup: float, what: str
) -> tuple[tuple[ModelTimes, ...], str | None]:
    """Return the times of a race, and why the module (`what`) lost, if it did; after Ctrl-C none, and that it was interrupted."""
    times: tuple[ModelTimes, ...] = ()
    reason: str | None = INTERRUPTED
    with timer.interruptible():
        times = race()
        reason = lost(times, min_speedup, what)
    return times, reason
