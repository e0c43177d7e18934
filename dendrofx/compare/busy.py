"""A table's rows once more beside workers that compute: what a server with several workers does to each of them.

The original and what replaces it take turns as in the table, on as many threads as there, then on one. The workers have torch's
default settings, a thread for every core. Nothing is corrected for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import nn

from dendrofx.compare.bench import Bench
from dendrofx.compare.prepare import STATIC
from dendrofx.compare.records import AGAIN, BusyRace
from dendrofx.compare.turns import time_in_turns
from dendrofx.compare.variants import Variant
from dendrofx.machine.neighbours import NEIGHBOURS, neighbours
from dendrofx.machine.race import on_one_thread

MOST_SECONDS = 10.0  # of a race: a call may wait for the workers many times its own length


def run_busy(bench: Bench, variants: Mapping[str, Variant]) -> list[BusyRace]:
    """Race what was rewritten against the original beside workers, on the current thread count and on one thread.

    Peers have threads of their own, and are left out.

    Returns:
        A race per thread count; none where nothing was rewritten.
    """
    prepared = bench.prepared
    ours = [name for name in prepared.modules if not (prepared.refused and name == prepared.main)]
    if not ours:
        return []
    names = ["scripted", *ours, *([STATIC] if STATIC in variants else [])]
    modules: dict[str, nn.Module] = {name: variants[name].module for name in names}
    modules[AGAIN] = modules["scripted"]
    several = torch.get_num_threads() > 1
    with neighbours(NEIGHBOURS) as workers:
        found = []
        for alone in (nullcontext(), on_one_thread()) if several else (nullcontext(),):
            with alone:
                race = time_in_turns(modules, bench.timed, bench.seconds, bench.seed, MOST_SECONDS)
            found.append(BusyRace(len(workers), race))
    return found
