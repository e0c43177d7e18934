"""Which inputs carry samples: found by calling the model on fewer of them.

Inputs of one call may all have a row per sample, or some of them may be shared by all samples (a mask [tokens, tokens], a second
set of documents), or the call may be one thing that cannot be cut (a graph with its adjacency). Sizes do not say which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten

Run = Callable[[Inputs], Any]
# Of more inputs with one leading size, not every choice is tried.
MOST_INPUTS = 5


@torch.no_grad()
def shared_inputs(run: Run, example: Inputs, output: Any = None) -> frozenset[str]:  # noqa: ANN401
    """Return the names of the inputs that all samples share; all of them, where the call cannot be cut.

    Args:
        run: calls the model with inputs by name.
        example: one call's inputs.
        output: the model's output on them, where it is known.

    Raises:
        InputError: the call can be cut, and none of the model's outputs has a row per sample.

    Example:
        >>> shared_inputs(run, Inputs((), (("x", torch.zeros(16, 12, 32)), ("mask", torch.zeros(12, 12)))))
        frozenset({'mask'})
    """
    names = frozenset(name for name, _ in example.kwargs)
    whole, form = flatten(run(example.copied()) if output is None else output)
    without, some = None, None
    for carrying in _choices(example):
        trial = replace(example, shared=names - carrying)
        part = _part(run, trial)
        if part is None:
            continue
        follows, otherwise = _followed(whole, part, trial.samples)
        if follows and not otherwise:
            return trial.shared
        some = trial if follows and some is None else some
        if carrying == names and not follows and not otherwise:
            without = trial
    if some is not None:  # outputs that are no rows of samples are left to the budget to refuse
        return some.shared
    if without is not None:
        shapes = " and ".join(f"'{n}' shaped {list(t.shape)}" for n, t in zip(form.names, whole, strict=True))
        raise InputError(
            f"the model returns {shapes} for {without.samples} samples: a deviation is per sample, so an output needs a row for"
            " each. Return the values before they are joined"
        )
    return names


def _choices(example: Inputs) -> Iterator[frozenset[str]]:
    """Give inputs of one leading size, all of them first, then fewer."""
    groups: dict[int, list[str]] = {}
    for name, t in example.kwargs:
        if t.dim() > 0 and t.size(0) > 0:
            groups.setdefault(t.size(0), []).append(name)
    for group in groups.values():
        least = 1 if len(group) <= MOST_INPUTS else len(group) - 1
        for count in range(len(group), least - 1, -1):
            yield from (frozenset(chosen) for chosen in combinations(group, count))


def _part(run: Run, trial: Inputs) -> list[Tensor] | None:
    """Return the outputs for half of the samples, for two of one; None where the model rejects them."""
    samples = trial.samples
    try:
        return flatten(run(trial.take(torch.arange(_fewer(samples)) % samples)))[0]
    except Exception:
        return None


def _fewer(samples: int) -> int:
    return 2 if samples == 1 else samples // 2


def _followed(whole: list[Tensor], part: list[Tensor], samples: int) -> tuple[bool, bool]:
    """Return whether any output follows the number of samples in its first axis alone, and whether any changes otherwise."""
    follows, otherwise = False, False
    for a, b in zip(whole, part, strict=True):
        rows = a.dim() > 0 and a.size(0) == samples and b.shape == (_fewer(samples), *a.shape[1:])
        follows = follows or rows
        otherwise = otherwise or not (rows or a.shape == b.shape)
    return follows, otherwise
