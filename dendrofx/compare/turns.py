"""Timing modules in turns on the same batches, and once more where a busy machine leaves their times in doubt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from dendrofx.machine.pace import pace, touched
from dendrofx.machine.race import Race, on_one_thread, race
from dendrofx.values.inputs import Inputs

Timed = Callable[[Mapping[str, nn.Module]], Race]


@torch.no_grad()
def time_in_turns(
    modules: Mapping[str, nn.Module],
    batches: Sequence[Inputs],
    seconds: float,
    seed: int,
    most_seconds: float = math.inf,
) -> Race:
    """Return the race of modules over batches, each round on the next batch; see `race` for the seconds."""
    calls: dict[str, Callable[[int], object]] = {n: partial(_call, m, batches) for n, m in modules.items()}
    warm = most_seconds < math.inf  # calls of seconds, whose outputs have been taken before
    turns = dict.fromkeys(calls, len(batches))
    return race(calls, seconds, seed, most_seconds=most_seconds, untimed_rounds=1 if warm else 4, batches=turns)


def time_in_doubt(modules: Mapping[str, nn.Module], names: tuple[str, str, str], timed: Timed) -> Race:
    """Race modules, and where the times that matter are in doubt, these once more on one thread.

    Where the estimates contradict each other, all over again, once.

    Args:
        modules: by name.
        names: of the baseline, of the baseline again, and of the module that is compared with it.
        timed: races what it is given.
    """
    result = timed(modules)
    for attempt in range(2):
        if result.threads > 1 and touched(result, names):
            with on_one_thread():
                result = replace(result, alone=timed({n: modules[n] for n in names}))
        if attempt or pace(result, *names).medians_hold:
            break
        result = timed(modules)
    return result


def _call(module: nn.Module, batches: Sequence[Inputs], number: int) -> object:
    return batches[number % len(batches)].call(module)
