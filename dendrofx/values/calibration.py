"""Calibration inputs: read once, checked, and cut into disjoint sets, four of them or with a budget to certify five.

    fit      2/5    light branches are fitted
    gate     1/5    gates are fitted, to the errors of light branches that have not seen these rows
    choose   1/5    errors and skill are measured, and the best are taken
    tune     1/5    the tolerances are set

    fit 1/5, gate, choose and tune 1/10 each, test 1/2      with a test set, which nothing is fitted, chosen or searched on

Of a dataset that is too large for this process (`Dealt`) the sets come chosen, and statistics of all its samples with them.

A batch is never cut when there are at least eight batches (ten with a test set), so inputs of one source (fragments of a
sequence, sentences of a document) stay together when the caller puts them in one batch. With fewer batches the samples of each
batch are dealt out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.machine.progress import progress
from dendrofx.machine.stages import numbered
from dendrofx.values.dealt import Dealt, Statistics
from dendrofx.values.fingerprint import data_fingerprint
from dendrofx.values.inputs import Inputs

WHOLE_BATCHES = 8
LEAST_SAMPLES = 8
SHARES = (0.4, 0.2, 0.2)  # fit, gate, choose; the rest tunes
TEST_SHARES = (0.2, 0.1, 0.1, 0.1)  # fit, gate, choose, tune; the rest tests
LEAST_WITH_TEST = 10  # batches, or samples


@dataclass(frozen=True)
class Calibration:
    """The four disjoint sets, each a list of batches.

    Attributes:
        sizes: the samples of the batches as they were given, each size once, ascending; without that of a partial last batch.
        fingerprint: of all of them.
        test: what a certificate is for; empty without a budget to certify.
        last: the batch that came last, where batches are whole.
        statistics: of the dataset that these are samples of; None where they are all there are.
        fitted: how many fitting samples that has.
    """

    fit: list[Inputs]
    gate: list[Inputs]
    choose: list[Inputs]
    tune: list[Inputs]
    sizes: tuple[int, ...]
    fingerprint: str
    test: list[Inputs] = field(default_factory=list)
    last: Inputs | None = None
    statistics: Statistics | None = None
    fitted: int | None = None

    @property
    def samples(self) -> tuple[int, ...]:
        """Samples in fit, gate, choose and tune, and in test where there is one; in fit of a dataset all that it has."""
        sets = [self.fit, self.gate, self.choose, self.tune, *([self.test] if self.test else [])]
        fit, *others = (sum(b.samples for b in part) for part in sets)
        return (fit if self.fitted is None else self.fitted, *others)

    def map(self, change: Callable[[Inputs], Inputs]) -> Calibration:
        """Return the sets with every batch changed; the fingerprint stays that of what was given."""
        sets = (self.fit, self.gate, self.choose, self.tune, self.test)
        fit, gate, choose, tune, test = ([change(b) for b in part] for part in sets)
        last = None if self.last is None else change(self.last)
        sizes = self.sizes
        if sizes == (1,):  # what is shared or cut was not known yet
            seen = sorted((b.samples for part in (fit, gate, choose, tune, test) for b in part), reverse=True)
            if last is not None:
                seen.remove(last.samples)
                seen.append(last.samples)
            sizes = _sizes(seen)
        return Calibration(fit, gate, choose, tune, sizes, self.fingerprint, test, last, self.statistics, self.fitted)

    def with_shared(self, shared: frozenset[str]) -> Calibration:
        """Return the sets with the names of the inputs that all samples share."""
        return self.map(lambda b: replace(b, shared=shared)) if shared else self

    def live_share(self, mask: str) -> float:
        """Return the share of nonzero entries of the input `mask`; of zeros, where its name begins with `~`."""
        batches = [*self.fit, *self.gate, *self.choose, *self.tune, *self.test]
        masks: list[Tensor] = [dict(b.kwargs)[mask.removeprefix("~")] for b in batches]
        live = sum(int((m == 0).sum() if mask.startswith("~") else (m != 0).sum()) for m in masks)
        return live / max(sum(m.numel() for m in masks), 1)

    @staticmethod
    def dealt(read: list[Inputs], dealt: Dealt) -> Calibration:
        """Return the sets of a dataset.

        Args:
            read: the batches of all its sets, with the inputs marked that all samples share.
            dealt: how they were dealt.
        """
        left = iter(read)
        fit, gate, choose, tune, *test = ([next(left) for _ in part] for part in dealt.sets)
        size = max(b.samples for b in read)
        made = Calibration(fit, gate, choose, tune, (size,), dealt.fingerprint, test[0] if test else [])
        return replace(made, statistics=dealt.statistics, fitted=dealt.fitted)

    @staticmethod
    def read(batches: Iterable[Any], seed: int, test: bool = False) -> Calibration:
        """Read an iterable of batches once and cut it by seed; see `read_batches` and `cut`."""
        return Calibration.cut(read_batches(batches), seed, test)

    @staticmethod
    def cut(read: list[Inputs], seed: int, test: bool = False) -> Calibration:
        """Cut batches into the sets.

        Args:
            read: with the inputs marked that all samples share.
            seed: of the cut.
            test: whether a fifth set is wanted.

        Raises:
            InputError: too few samples.
        """
        read = [b for b in read if b.samples > 0]
        if not read:
            raise InputError("calibration is empty: pass at least a few hundred samples, or calibration=None")
        generator = torch.Generator().manual_seed(seed)
        shares = TEST_SHARES if test else SHARES
        whole, least = (LEAST_WITH_TEST, LEAST_WITH_TEST) if test else (WHOLE_BATCHES, LEAST_SAMPLES)
        parts = _deal_batches(read, generator, shares) if len(read) >= whole else _deal_samples(read, generator, shares)
        count = sum(b.samples for b in read)
        if not all(parts) or (len(read) < whole and count < least):
            raise InputError(
                f"calibration has {count} samples in {len(read)} batches; it is cut into {'five' if test else 'four'} disjoint sets"
                f" and needs at least {least} samples in one batch, or {whole} batches (a few hundred samples to be of use)"
            )
        fit, gate, choose, tune = parts[:4]
        sizes, last = _sizes([b.samples for b in read]), read[-1] if len(read) >= whole else None
        return Calibration(fit, gate, choose, tune, sizes, data_fingerprint(read), parts[4] if test else [], last)


def _sizes(samples: Sequence[int]) -> tuple[int, ...]:
    """Return each size once, ascending, but that of a last batch smaller than all others: nobody chose what was left for it."""
    *others, last = samples
    return tuple(sorted(set(others if others and last < min(others) else samples)))


def read_batches(batches: Iterable[Any]) -> list[Inputs]:
    """Read an iterable of batches once.

    Args:
        batches: each a tensor, a tuple or a dict of tensors. A single tensor is one batch.

    Raises:
        InputError: nothing that can be read, or values that are NaN; says what to write instead.
    """
    if isinstance(batches, Tensor):
        batches = [batches]
    kind = f"{type(batches).__module__.partition('.')[0]}.{type(batches).__name__}"
    instead = {
        "numpy.ndarray": "torch.from_numpy(calibration).split(64)",
        "pandas.DataFrame": "torch.from_numpy(frame.to_numpy(dtype='float32')).split(64)",
    }
    if kind in instead:
        raise InputError(f"calibration is an iterable of batches of tensors, got a {kind}: write {instead[kind]}")
    if not isinstance(batches, Iterable) or isinstance(batches, Mapping | str):
        raise InputError(
            f"calibration is an iterable of batches, got {type(batches).__name__}: for a single batch pass [batch]"
        )
    return [
        _checked(b, i) for i, b in enumerate(numbered(progress(batches, "reading calibration"), "calibration batch"))
    ]


def _checked(batch: Any, number: int) -> Inputs:  # noqa: ANN401
    try:
        inputs = Inputs.of(batch)
    except InputError as error:
        raise InputError(f"calibration batch {number}: {error}") from error
    if not inputs.tensors:
        raise InputError(f"calibration batch {number} holds no tensor: {inputs}{_fix(inputs)}")
    for tensor in inputs.tensors:
        if tensor.device.type != "cpu":
            raise InputError(f"calibration batch {number} is on {tensor.device}: move it to the CPU")
        if tensor.layout != torch.strided:
            raise InputError(
                f"calibration batch {number} {inputs} holds a sparse tensor, which no graph takes: write x.to_dense()"
            )
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            bad = int(tensor.isnan().sum())
            raise InputError(f"calibration batch {number} {inputs} holds {bad} values that are NaN: drop these samples")
    return inputs


def _fix(inputs: Inputs) -> str:
    """Return what to write for arrays that are no tensors."""
    values = [*inputs.args, *(v for _, v in inputs.kwargs)]
    return ". Write torch.from_numpy(x) for each array" if any(hasattr(v, "__array__") for v in values) else ""


def _deal_batches(batches: list[Inputs], generator: torch.Generator, shares: Sequence[float]) -> list[list[Inputs]]:
    return [[batches[i] for i in part.tolist()] for part in _deal(len(batches), generator, shares)]


def _deal_samples(batches: list[Inputs], generator: torch.Generator, shares: Sequence[float]) -> list[list[Inputs]]:
    parts: list[list[Inputs]] = [[] for _ in range(len(shares) + 1)]
    for batch in batches:
        for part, index in zip(parts, _deal(batch.samples, generator, shares), strict=True):
            if len(index):  # a batch that is one sample is never cut, whatever its tensors' sizes
                part.append(batch if batch.samples == 1 else batch.take(index.sort().values))
    return parts


def _deal(count: int, generator: torch.Generator, shares: Sequence[float]) -> list[Tensor]:
    """Return a seeded order of `count` things, cut into the sets; from eight things on (ten with a test set), none is empty."""
    order = torch.randperm(count, generator=generator)
    sizes = [int(share * count + 1e-9) for share in shares]
    return list(order.split([*sizes, count - sum(sizes)]))
