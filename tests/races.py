"""Races that were run for real, beside busy processes and without: a model eight Linears deep against a narrower one.

`two, a larger model` is 1024 wide against 256, `others compute` 24 Linears of 384 against 192, the rest 512 against 256. On a
quiet machine the 512 wide one takes 3.3 times as long as its rival, on one thread and on two. Recorded on two cores with `race`,
the first fifteen rounds; the busy processes were `python -c "while True: pass"`, and in `others compute` test runs on all cores.
"""

import json
from pathlib import Path
from typing import Any

from dendrofx.machine.race import Race, Timing


def _race(value: Any, alone: Race | None = None) -> Race:
    timings = {n: Timing(*(tuple(t[k]) for k in ("ms", "cpu_ms", "switches"))) for n, t in value["timings"].items()}
    rounds = len(next(iter(timings.values())).ms)
    return Race(timings, rounds, value["switches_per_second"], value["threads"], alone)


def _both(value: Any) -> Race:
    return _race(value["race"], _race(value["alone"]) if "alone" in value else None)


RACES: dict[str, Race] = {
    name: _both(value) for name, value in json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")).items()
}
