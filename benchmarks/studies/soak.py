"""Does an artifact stay right, quick and small under load? Random batches on several threads, every row checked.

The saved file is loaded as a service would load it, and one module answers all threads. What a sample should get is its own answer,
computed alone and on one thread. Where a gate's score lies within its margin of the tolerance the order of float sums decides, and
so does the batch: such samples may also get what the same module gives them with every tolerance moved by twice the margin, up or
down; they are counted.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dendrofx
from benchmarks.cases import CASES, CaseOptions
from benchmarks.command import writable_file, write_json
from benchmarks.studies.footprint import memory
from dendrofx.compare.case import Case
from dendrofx.compare.text import machine_line, text_table
from dendrofx.errors import DendrofxError
from dendrofx.machine.capability import describe_machine
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

CLOSE = 1e-5  # of the sample's largest value: another batch sums floats in another order
GROWTH_MB = 64.0
MARGIN = 2e-2  # twice the widest margin of a gate
SLICES = 10  # of the run, whose median latencies are compared
WARM_CALLS = 200


@dataclass
class Slice:
    """A part of the run: milliseconds per sample of its calls, and the memory at its end."""

    ms: list[float] = field(default_factory=list)
    resident_mb: float = 0.0


@dataclass
class Soak:
    """What was seen.

    Attributes:
        calls, rows, wrong, near: of all threads; near are right with tolerances moved by their margin.
        slices: in order.
        errors: of threads that failed.
    """

    calls: int = 0
    rows: int = 0
    wrong: int = 0
    near: int = 0
    slices: list[Slice] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def growth_mb(self) -> float:
        """Memory at the end over that of the first slice's end."""
        return self.slices[-1].resident_mb - self.slices[0].resident_mb

    @property
    def holds(self) -> bool:
        """Whether no row was wrong, no thread failed, and memory stayed."""
        return not self.wrong and not self.errors and self.growth_mb < GROWTH_MB


@dataclass(frozen=True)
class Truth:
    """Samples, and the answers that each may get: its own, and those with moved tolerances."""

    samples: Inputs
    answers: Sequence[Tensor]

    @staticmethod
    def of(module: torch.jit.ScriptModule, samples: Inputs) -> Truth:
        """Compute every sample alone."""
        own = dendrofx.tolerances(module)
        answers = []
        for move in (1.0, 1.0 - MARGIN, 1.0 + MARGIN):
            dendrofx.set_tolerances(module, {site: float(t) * move for site, t in own.items()})
            each = [_flat(samples.take(torch.tensor([i])).call(module)) for i in range(samples.samples)]
            answers.append(torch.cat(each))
        dendrofx.set_tolerances(module, {site: float(t) for site, t in own.items()})
        return Truth(samples, answers)

    def check(self, index: Tensor, output: Any) -> tuple[int, int]:  # noqa: ANN401
        """Return how many samples of a batch are wrong, and how many are right with a moved tolerance alone."""
        got = _flat(output)
        right = [_close(got, answers[index]) for answers in self.answers]
        any_right = right[0] | right[1] | right[2]
        return int((~any_right).sum()), int((any_right & ~right[0]).sum())


def _flat(output: Any) -> Tensor:  # noqa: ANN401
    """Return a sample's numbers in one row."""
    return torch.cat([x.flatten(1) if x.dim() > 1 else x[:, None] for x in flatten(output)[0]], 1)


def _close(got: Tensor, wanted: Tensor) -> Tensor:
    return (got - wanted).abs().amax(1) <= CLOSE * wanted.abs().amax(1).clamp_min(1e-30)


@torch.inference_mode()
def soaked(module: torch.jit.ScriptModule, truth: Truth, minutes: float, threads: int, most: int, seed: int) -> Soak:
    """Call a module on several threads."""
    found, lock = Soak(slices=[Slice() for _ in range(SLICES)]), threading.Lock()
    begin = time.perf_counter()
    length = minutes * 60 / SLICES

    def work(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        with torch.inference_mode():
            while (now := time.perf_counter() - begin) < minutes * 60:
                rows = draw.randint(1, most)
                index = torch.tensor([draw.randrange(truth.samples.samples) for _ in range(rows)])
                batch = truth.samples.take(index)
                started = time.perf_counter()
                output = batch.call(module)
                spent = 1e3 * (time.perf_counter() - started) / rows
                wrong, near = truth.check(index, output)
                with lock:
                    found.calls += 1
                    found.rows += rows
                    found.wrong += wrong
                    found.near += near
                    found.slices[min(int(now / length), SLICES - 1)].ms.append(spent)

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:
            found.errors.append(f"{type(error).__name__}: {error}")

    workers = [threading.Thread(target=guarded, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for number, part in enumerate(found.slices):
        time.sleep(max(begin + (number + 1) * length - time.perf_counter(), 0.0))
        part.resident_mb = memory("VmRSS")
    for worker in workers:
        worker.join()
    return found


def artifact(case: Case, seed: int, path: Path) -> None:
    """Transform a case's model and save it."""
    routed = dendrofx.transform(
        case.model,
        calibration=case.calibration,
        budget=case.certified or (max(case.budgets) if case.budgets else 0.01),
        dead_rows=case.dead_rows,
        batch_sizes=[32],
        options=dendrofx.Options(seed=seed, tune_seconds=0),
    )
    if not routed.plan.rewrites:
        raise DendrofxError(f"nothing of {case.name} was routed: {routed.plan.refusal}")
    dendrofx.save(routed, path)


def loaded(path: Path) -> torch.jit.ScriptModule:
    """Load a saved file with torch alone; one thread computes each call."""
    torch.set_num_threads(1)
    module: torch.jit.ScriptModule = torch.jit.load(path)
    return module.eval()


def soaked_process(path: Path, truth: Truth, minutes: float, threads: int, most: int, seed: int) -> Soak:
    """Load a file in this process, make the first calls, and soak it."""
    module, samples = loaded(path), truth.samples
    with torch.inference_mode():
        for _ in range(WARM_CALLS):
            samples.take(torch.randint(samples.samples, (random.randint(1, most),))).call(module)
    return soaked(module, truth, minutes, threads, most, seed)


def soaked_processes(
    path: Path, truth: Truth, processes: int, minutes: float, threads: int, most: int, seed: int
) -> Soak:
    """Soak a file in several processes at once, each with seeds of its own; memory is that of the largest."""
    asked = (path, truth, minutes, threads, most)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        runs = [pool.submit(soaked_process, *asked, seed + 100 * n) for n in range(processes)]
        found = [run.result() for run in runs]
    slices = [
        Slice([ms for s in parts for ms in s.ms], max(s.resident_mb for s in parts))
        for parts in zip(*(f.slices for f in found), strict=True)
    ]
    calls, rows, wrong, near = (sum(getattr(f, name) for f in found) for name in ("calls", "rows", "wrong", "near"))
    return Soak(calls, rows, wrong, near, slices, [error for f in found for error in f.errors])


def run(args: argparse.Namespace) -> None:
    """Print what was seen; exit code 1 where it does not hold."""
    writable_file(args.json)
    case = CASES[args.case[0]](CaseOptions(seed=args.seed))
    asked = (args.minutes, args.threads, args.most, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        artifact(case, args.seed, path)
        with torch.inference_mode():
            truth = Truth.of(loaded(path), case.test.batches(len(case.test))[0])
        if args.processes == 1:
            found = soaked_process(path, truth, *asked)
        else:
            found = soaked_processes(path, truth, args.processes, *asked)
    by = f"{args.processes} x {args.threads}" if args.processes > 1 else f"{args.threads}"
    print(f"{case.title}; {by} threads, {args.minutes:g} minutes\n\n{table(found)}\n\n{said(found)}")
    print(f"\n{machine_line(torch.get_num_threads(), describe_machine())}")
    if args.json is not None:
        write_json(args.json, asdict(found))
    if not found.holds:
        raise SystemExit(1)


def table(found: Soak) -> str:
    """Return a line per slice."""
    rows = [
        [str(n + 1), str(len(s.ms)), f"{statistics.median(s.ms):.4f}" if s.ms else "-", f"{s.resident_mb:.0f}"]
        for n, s in enumerate(found.slices)
    ]
    return text_table(rows, ["part", "calls", "ms a sample, median", "resident MB"])


def said(found: Soak) -> str:
    """Say whether it holds."""
    errors = f"; {len(found.errors)} threads failed, the first with {found.errors[0]}" if found.errors else ""
    return (
        f"{found.rows:,} rows in {found.calls:,} calls: {found.wrong} wrong, {found.near} by the other way of a score at its"
        f" tolerance; memory {found.growth_mb:+.1f} MB (limit {GROWTH_MB:.0f}){errors}"
    )
