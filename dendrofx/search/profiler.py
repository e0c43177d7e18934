"""The profiler: everything that a decision times, within a time budget, and interruptible.

What is timed is scripted and frozen, as it will run. Sites of equal shape share their figures. When the time is up, or on
Ctrl-C, no more parts are timed and the decision is taken among those that were; the last step, timing the whole rewritten model
against the original, always runs.

Where a race is in doubt (`machine/pace.py`), it is run once more on one thread, for the CPU time there; a race of whole models
whose estimates contradict each other, all over again, once. A whole model that wins, and the first that loses, is run shortly on
one thread too, which is what a worker beside others should have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch import Tensor, nn

from dendrofx.gates.form import LightRuns, reads_of_light
from dendrofx.graph.block import row_macs
from dendrofx.lowering.script import lowered
from dendrofx.machine.alone import wins_alone, with_one_thread
from dendrofx.machine.cores import crowded
from dendrofx.machine.memory import return_free_memory
from dendrofx.machine.pace import figures, noisy, pace, touched
from dendrofx.machine.race import AA_NOISE, Race, race
from dendrofx.rewriting.rewrite import Branches
from dendrofx.runtime.leaves import GateOnLight, LightAlone, RoutingAlone
from dendrofx.search.choose import Candidate
from dendrofx.search.cost import BLOCK, SiteTimes
from dendrofx.search.remembered import known_times, made_once
from dendrofx.search.timer import Part
from dendrofx.values.inputs import Inputs

SITE_SECONDS = 0.6
MODEL_SECONDS, MOST_MODEL_SECONDS = 1.0, 6.0
ALONE_SECONDS, MOST_ALONE_SECONDS = 0.3, 1.5
SITE_ROUNDS = 7
PLAIN = 4  # a race that this many times its noise decides is not run again
Call = Callable[[int], object]
Maker = Callable[[], Call]
DISTURBED = "the machine was disturbed: parts were timed by CPU time on one thread"
BASELINE, AGAIN, ROUTED = "scripted", "scripted again", "routed"


class Profiler:
    """See the module's docstring.

    Args:
        seconds: time for timing parts, from the first part on.
        min_speedup: what whole models are raced for.
    """

    def __init__(self, seconds: float, min_speedup: float = 1.0) -> None:
        self.seconds, self.min_speedup = seconds, min_speedup
        self.deadline = math.inf
        self.interrupted = self.lost = False
        self.notes = [said] if (said := crowded(torch.get_num_threads())) else []
        self.known = known_times()

    @property
    def expired(self) -> bool:
        """Whether no more parts should be timed."""
        return self.interrupted or time.perf_counter() > self.deadline

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the block and the timing, not the program; a second one is not caught."""
        try:
            yield
        except KeyboardInterrupt:
            if self.interrupted:
                raise
            self.interrupted = True
            self.notes.append("tuning was interrupted (Ctrl-C): it decided on what was timed by then")

    def ran_out(self, left_out: str) -> None:
        """Note what was not timed because time was up; after Ctrl-C that is said already."""
        if not self.interrupted:
            self.notes.append(f"out of time (tune_seconds={self.seconds:g}): {left_out}")

    @torch.no_grad()
    def site(
        self, make: str, rows: Tensor, candidates: Sequence[Candidate], fulls: Mapping[str, nn.Module]
    ) -> SiteTimes:
        """Time one site's parts in turns; see `SiteTimes`.

        Args:
            make: shape and layers of the site; parts of sites of one make are timed once.
            rows: f32[M, in], one call's rows.
            candidates: light branches with gates.
            fulls: by name, `"block"` among them.
        """
        self.deadline = min(self.deadline, time.perf_counter() + self.seconds)
        count, block = len(rows), fulls[BLOCK]
        out = int(block(rows[:1]).size(1))
        counts = sorted({n for n in (1, 16, count // 4, count) if 1 <= n <= count})
        hard = max(count // 8, 1)
        parts: dict[Part, tuple[str, Maker]] = {
            ("split",): ("split", partial(_routing, rows, out, 0)),
            ("mixed",): ("mixed", partial(_routing, rows, out, hard)),
        }
        frozen = cache(_frozen)  # one full branch, with all its weights, for every count of rows
        parts["again",] = (f"{BLOCK} again, {row_macs(block)} MACs", partial(_frozen_call, block, rows, freeze=frozen))
        for name, full in fulls.items():
            for n in counts:
                said = f"full {name} {n}, {row_macs(full)} MACs"
                parts["full", name, str(n)] = (said, partial(_frozen_call, full, rows[:n], freeze=frozen))
        for c in candidates:
            form, gate, light = str(c.branches.light_form), str(c.branches.gate_form), c.branches.light
            reads = reads_of_light(c.branches.gate_form)
            said = f"light {form} {reads}, {row_macs(light)} MACs"
            parts["light", form, reads] = (said, partial(_light, light, reads, rows))
            said = f"gate {_width(c.branches, rows)} {gate}, {row_macs(c.branches.gate)} MACs"
            parts["gate", form, gate] = (said, partial(_gate, c, rows))
        ms = self._timed(f"{make}, {count} rows", parts)
        return SiteTimes(
            rows=count,
            block=ms["full", BLOCK, str(count)],
            full={name: tuple((n, ms["full", name, str(n)]) for n in counts) for name in fulls},
            light={(k[1], k[2]): v for k, v in ms.items() if k[0] == "light"},
            gate={(k[1], k[2]): v for k, v in ms.items() if k[0] == "gate"},
            split=ms["split",],
            moved=max(ms["mixed",] - ms["split",], 0.0) / hard,
            again=ms["again",],
        )

    def _timed(self, where: str, parts: Mapping[Part, tuple[str, Maker]]) -> dict[Part, float]:
        """Medians of the parts; those of the same name and size, here or at another site of the same shape, are timed once."""
        keys = {part: f"{where}: {name}" for part, (name, _) in parts.items()}
        left = max(self.deadline - time.perf_counter(), SITE_SECONDS)
        makers = {keys[part]: make for part, (_, make) in parts.items() if keys[part] not in self.known}
        if new := {key: make() for key, make in makers.items()}:
            run = partial(race, new, SITE_SECONDS, least_rounds=SITE_ROUNDS, most_seconds=left, untimed_rounds=1)
            self.known.update(self._figures(run))
        return {part: self.known[key] for part, key in keys.items()}

    @torch.no_grad()
    def calls(self, calls: Mapping[Part, tuple[nn.Module, Sequence[Inputs]]]) -> dict[Part, float]:
        """Time whole models in turns; see `Timer.calls`."""
        frozen = cache(_frozen)

        def call(module: nn.Module, batches: Sequence[Inputs]) -> Call:
            return lambda number: batches[number % len(batches)].call(module)

        for module, batches in calls.values():
            _first_calls(frozen(module), batches[0])
        return_free_memory()  # what freezing took
        made = {" ".join(part): call(frozen(m), batches) for part, (m, batches) in calls.items()}
        turns = {" ".join(part): len(batches) for part, (_, batches) in calls.items()}
        ms = self._figures(partial(_race_models, made, turns))
        return {part: ms[" ".join(part)] for part in calls}

    def _figures(self, run: Callable[[], Race]) -> dict[str, float]:
        """Return what the callables of a race take, ms; see `figures`."""
        if touched(result := doubly(run), result.timings) and DISTURBED not in self.notes:
            self.notes.append(DISTURBED)
        return figures(result)

    @torch.no_grad()
    def models(self, captured: nn.Module, routed: nn.Module, batches: Sequence[Inputs]) -> Race:
        """Time the whole models in turns on the same batches; see `doubt.pace`; again where it could matter."""
        base, other = _frozen(captured), _frozen(routed)
        for module in (base, other):
            _first_calls(module, batches[0])
        return_free_memory()  # what freezing took
        calls = {
            BASELINE: lambda number: batches[number % len(batches)].call(base),
            ROUTED: lambda number: batches[number % len(batches)].call(other),
            AGAIN: lambda number: batches[number % len(batches)].call(base),
        }
        run = partial(_race_models, calls, dict.fromkeys(calls, len(batches)))
        result = doubly(run)
        result = result if self._plain(result) else doubly(run)
        won = pace(result, BASELINE, AGAIN, ROUTED).ratio >= self.min_speedup
        if result.alone is None and (won or not self.lost):
            result = with_one_thread(result, partial(run, short=True))
        said = "" if self.lost else wins_alone(result, BASELINE, AGAIN, ROUTED, self.min_speedup)
        self.notes += [said] if said else []
        self.lost |= not won
        return result

    def _plain(self, result: Race) -> bool:
        """Return whether the race was quiet, or the speedup is so far from the wanted one that the noise does not decide."""
        if not noisy(result, BASELINE, AGAIN, ROUTED):
            return True
        if not (found := pace(result, BASELINE, AGAIN, ROUTED)).reliable:
            return False
        noise = max(abs(math.log(result.ratio(AGAIN, BASELINE))), AA_NOISE)
        return abs(math.log(found.ratio / self.min_speedup)) > PLAIN * noise


def doubly(run: Callable[[], Race]) -> Race:
    """Run a race, and where its wall times are in doubt and torch may use several threads the same on one."""
    result = run()
    return with_one_thread(result, run) if touched(result, result.timings) else result


def _race_models(calls: Mapping[str, Call], batches: Mapping[str, int], short: bool = False) -> Race:
    """Fifteen rounds, or of models that take long as many as fit into a few seconds.

    Batches of other sizes leave other holes in the heap: what the calls of a round have freed goes back before the next. Whichever
    is called first then takes its pages anew, each as often as the others.
    """
    return race(
        calls,
        ALONE_SECONDS if short else MODEL_SECONDS,
        most_seconds=MOST_ALONE_SECONDS if short else MOST_MODEL_SECONDS,
        untimed_rounds=1,
        pause=return_free_memory,
        batches=batches,
    )


def _first_calls(module: nn.Module, batch: Inputs) -> None:
    """Make the calls that TorchScript instruments and optimises on, with one sample: they take twice the memory of later ones."""
    one = batch.take(torch.arange(1)) if batch.samples > 1 else batch
    for _ in range(2):
        try:
            one.call(module)
        except RuntimeError:  # a model made for one batch size
            batch.call(module)


def _frozen(module: nn.Module) -> nn.Module:
    return lowered(module.eval(), freeze=True)


def _frozen_call(module: nn.Module, *args: Tensor, freeze: Callable[[nn.Module], nn.Module] = _frozen) -> Call:
    frozen = freeze(module)
    _first_calls(frozen, Inputs(args))
    return lambda _: frozen(*args)


def _routing(rows: Tensor, out: int, hard: int) -> Call:
    score = torch.zeros(len(rows))
    score[torch.linspace(0, len(rows) - 1, hard).long()] = 2.0
    return _frozen_call(RoutingAlone(out), rows, score)


def _light(light: nn.Module, reads: str, rows: Tensor) -> Call:
    return _frozen_call(light, rows, freeze=lambda m: made_once(m, reads, lambda: _frozen(LightAlone(m, reads))))


def _width(branches: Branches, rows: Tensor) -> int:
    """Return the width of what a gate reads besides its site's rows and outputs; gates that read alike take the same time."""
    reads = branches.gate_form.reads
    alike = reads in ("input", "light")
    return 0 if alike else LightRuns(branches.light).read(rows[:1], reads).evidence[0].numel()


def _gate(candidate: Candidate, rows: Tensor) -> Call:
    branches, reads = candidate.branches, candidate.branches.gate_form.reads
    given = () if reads == "input" else LightRuns(branches.light).read(rows, reads)
    leaf = (lambda m: m) if reads == "input" else GateOnLight
    return _frozen_call(branches.gate, rows, *given, freeze=lambda m: made_once(m, reads, lambda: _frozen(leaf(m))))
