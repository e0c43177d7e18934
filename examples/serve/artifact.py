"""A TorchScript file as what answers requests: torch alone loads it, whether dendrofx wrote it or `torch.jit.save`."""

from __future__ import annotations

import ctypes
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inputs import DTYPES, Asked, Sequences, kind_of

DESCRIBED = "dendrofx_inputs.json"  # an extra file of what `dendrofx.save` wrote


class Artifact:
    """A file, loaded and frozen.

    Args:
        path: of the file.
        inputs: what it takes, as `f32[N, 64]`; empty where the file says it.
        count: call `forward_counted`, where the file has it, for one batch in so many; 0: for none.
        longest: tokens of a sequence at most.

    Attributes:
        kind: how it is asked.
        per_token: its output has a row for each token, not for each sample; known when it is warm.

    Raises:
        ValueError: it is no TorchScript file, or of a model that this server cannot ask.
    """

    def __init__(self, path: Path, inputs: str = "", count: int = 1, longest: int = 512) -> None:
        extra: dict[str, Any] = {DESCRIBED: ""}
        try:
            module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"cannot load {path}: {str(error).splitlines()[0]}") from error
        names = [argument.name for argument in module.forward.schema.arguments[1:]]
        self.kind = kind_of(inputs or _spelled(extra[DESCRIBED]), names, longest)
        has_counts = hasattr(module, "forward_counted")
        self.module = torch.jit.freeze(module, preserved_attrs=["forward_counted"] if has_counts else [])
        self.count, self.per_token = max(count, 0) if has_counts else 0, False
        self._batches = itertools.count()  # safe on several threads

    def answer(self, parts: Sequence[Asked]) -> tuple[list[Tensor], Counter[str]]:
        """Run one batch of several requests.

        Returns:
            f32[samples, ...] for each request, and what was executed, as "site name" to a number; nothing of a
            batch that is not counted.
        """
        counted = self.count > 0 and next(self._batches) % self.count == 0
        output, counts = self._run(self.kind.join(parts), counted)
        answers = list(output.split([p.samples for p in parts]))
        if self.per_token:
            answers = [a[:, : max(p.lengths)] for a, p in zip(answers, parts, strict=True)]
        return answers, counts

    def warm(self, sizes: Sequence[int]) -> str:
        """Call the module twice at each number of samples: TorchScript compiles in its first two calls, oneDNN at each new size.

        Returns:
            A line with the times of the first calls and of one after them.
        """
        begin = time.perf_counter()
        kinds = {0: [False], 1: [True]}.get(self.count, [True, False])  # counted or not: each is code of its own
        calls = [self._timed(n, counted) for counted in kinds for n in sizes for _ in range(2)]
        if isinstance(self.kind, Sequences):
            outputs = [self._run(self.kind.join([self.kind.examples(2, tokens)]), kinds[0])[0] for tokens in (16, 17)]
            self.per_token = [o.shape[1:2] for o in outputs] == [(16,), (17,)]
        took = time.perf_counter() - begin
        first, second, now = (f"{t * 1e3:.1f}" for t in (*calls[:2], self._timed(sizes[0], kinds[-1])))
        return f"{len(calls)} calls in {took:.1f} s; of {sizes[0]}: first {first} ms, second {second}, now {now}"

    def _timed(self, samples: int, counted: bool) -> float:
        begin = time.perf_counter()
        self._run(self.kind.join([self.kind.examples(samples)]), counted)
        return time.perf_counter() - begin

    def _run(self, inputs: Sequence[Tensor], counted: bool) -> tuple[Tensor, Counter[str]]:
        with torch.inference_mode():
            if not counted:
                return _first(self.module(*inputs)), Counter()
            output, counts = self.module.forward_counted(*inputs)
        return _first(output), Counter({f"{site} {name}": n for site, of in counts.items() for name, n in of.items()})


def add(total: Counter[str], counts: Counter[str]) -> None:
    """Add what one call executed to what all did; of the largest scores the largest stays."""
    for name, count in counts.items():
        largest = name.rpartition(" ")[2].startswith("largest_")
        total[name] = max(total[name], count) if largest else total[name] + count


def raw(answer: Tensor) -> bytes:
    """Return a tensor's values as bytes; without NumPy, which torch does not need."""
    kept = answer.contiguous()
    return ctypes.string_at(kept.data_ptr(), kept.nbytes)


def _first(output: Any) -> Tensor:  # noqa: ANN401  (a tensor, or a tuple or dict of them)
    """Return the first tensor of an output, which is the one that is answered with."""
    if isinstance(output, dict):
        output = list(output.values())
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found.float()


def _spelled(described: str | bytes) -> str:
    """Spell the inputs that a file describes, as `f32[N, 64]`; empty where it does not."""
    short = {long: name for name, long in DTYPES.items()}
    inputs = json.loads(described)["inputs"] if described else []
    if any(i["dtype"] is None or i["axes"] is None for i in inputs):
        return ""
    return " ".join(f"{short.get(i['dtype'], i['dtype'])}[{', '.join(map(str, i['axes']))}]" for i in inputs)
