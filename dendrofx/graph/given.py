"""What the caller gave to run the model on: read once, brought into the form of the graph's inputs, and tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.graph.capture.prepare import stand_in
from dendrofx.graph.show import first_line
from dendrofx.machine.cores import on_free_cores
from dendrofx.values.calibration import read_batches
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import flatten
from dendrofx.values.samples import shared_inputs


@dataclass(frozen=True)
class Given:
    """Inputs by name, as the graph takes them, with those marked that all samples share.

    Attributes:
        form: how the model is called.
        example: one call's; None where nothing was given.
        batches: of the calibration; None without.
    """

    form: CallForm
    example: Inputs | None = None
    batches: list[Inputs] | None = None

    @staticmethod
    def read(model: nn.Module, example_inputs: Any, calibration: Iterable[Any] | None) -> Given:  # noqa: ANN401
        """Read the inputs; the model that is run is a stand-in, on copies.

        Args:
            model: the original.
            example_inputs: as `transform` takes them.
            calibration: the same.

        Raises:
            InputError: what cannot be used, with the number of its batch and what to write instead.
        """
        example = None if example_inputs is None else Inputs.of(example_inputs)
        batches = None if calibration is None else [b for b in read_batches(calibration) if b.samples > 0]
        if batches == []:
            raise InputError("calibration is empty: pass at least a few hundred samples, or calibration=None")
        first = example if example is not None else None if batches is None else batches[0]
        if first is None:
            return Given(CallForm.of_signature(model))
        form = CallForm.of(model, first)
        plain = None if example is None else form.plain(example)
        named = None if batches is None else [_plain(form, b, i) for i, b in enumerate(batches)]
        return _tried(model, form, plain, named)


def _plain(form: CallForm, batch: Inputs, number: int) -> Inputs:
    try:
        return form.plain(batch)
    except InputError as error:
        raise InputError(f"calibration batch {number}: {error}") from error


@on_free_cores()
@torch.no_grad()
def _tried(model: nn.Module, form: CallForm, example: Inputs | None, batches: list[Inputs] | None) -> Given:
    """Run the model on one batch of each kind, and find the inputs that all samples share."""
    runner = stand_in(model)

    def run(inputs: Inputs) -> Any:  # noqa: ANN401
        return form.call(runner, inputs.copied())

    kinds = one_of_each_kind([*([] if example is None else [example]), *(batches or [])])
    whole = try_inputs(type(model).__name__, run, kinds[0])
    for inputs in kinds[1:]:
        try_inputs(type(model).__name__, run, inputs)
    try:
        shared = shared_inputs(run, kinds[0], whole)
    except InputError:
        if batches is not None:
            raise
        shared = frozenset()
    _check_ids(run, batches or [], kinds)
    _check_batches(run, batches or [], shared)
    marked = None if batches is None else [replace(b, shared=shared) for b in batches]
    first = example if example is not None else kinds[0]
    return Given(form, replace(first, shared=shared), marked)


def try_inputs(model: str, run: Callable[[Inputs], Any], inputs: Inputs) -> Any:  # noqa: ANN401
    """Return the model's output, so that inputs it rejects are reported as inputs."""
    try:
        return run(inputs)
    except Exception as error:
        raise InputError(
            f"{model} rejects the inputs {inputs}: {first_line(error)}. Pass batches as the model is called: a tensor, a tuple of"
            f" positional inputs or a dict of named ones, with the width and dtype it was trained on{_label(run, inputs)}"
        ) from error


def _label(run: Callable[[Inputs], Any], inputs: Inputs) -> str:
    """Return a hint, where the last input is probably a label."""
    if len(inputs.kwargs) < 2:
        return ""
    try:
        run(Inputs((), (*inputs.kwargs[:-1], (inputs.kwargs[-1][0], None))))
    except Exception:
        return ""
    return ". Where the last of a batch is a label: calibration=[x for x, _ in loader]"


def one_of_each_kind(batches: Sequence[Inputs]) -> list[Inputs]:
    """Return the first batch of every width and dtype."""
    kinds: dict[str, Inputs] = {}
    for batch in batches:
        kinds.setdefault(str([_kind(t) for t in batch.tensors]), batch)
    return list(kinds.values())


def _check_ids(run: Callable[[Inputs], Any], batches: list[Inputs], tried: Sequence[Inputs]) -> None:
    """Raise `InputError` for ids that the model has no row for; what was tried is not run again."""
    for number in _of_extreme_ids(batches):
        batch = batches[number]
        if any(batch is one for one in tried):
            continue
        try:
            run(batch)
        except Exception as error:
            raise InputError(f"calibration batch {number} {batch} is rejected: {first_line(error)}") from error


def _of_extreme_ids(batches: Sequence[Inputs]) -> list[int]:
    """Return the numbers of the batches with the lowest and the highest id of an input: an embedding may have no row for it."""
    extremes: dict[tuple[int, int], tuple[int, int]] = {}
    for number, batch in enumerate(batches):
        for place, t in enumerate(batch.tensors):
            if t.dtype in (torch.int32, torch.int64) and t.numel() > 0:
                for sign, value in ((-1, -int(t.min())), (1, int(t.max()))):
                    if value > extremes.setdefault((place, sign), (value, number))[0]:
                        extremes[place, sign] = value, number
    return sorted({number for _, number in extremes.values()})


def _kind(t: Tensor) -> tuple[object, ...]:
    """Return dtype and width; of ids and masks, whose second size counts tokens, the number of axes."""
    return t.dtype, t.shape[1:] if t.is_floating_point() else t.dim()


def _check_batches(run: Callable[[Inputs], Any], batches: list[Inputs], shared: frozenset[str]) -> None:
    """Raise `InputError` for samples without an axis of samples, and for infinite values that spoil the outputs."""
    for number, batch in enumerate(batches):
        floats = [t for t in batch.tensors if t.is_floating_point()]
        if len(shared) == len(batch.kwargs) and floats and all(t.dim() == 1 for t in batch.tensors):
            raise InputError(
                f"calibration batch {number} is {batch}, one sample without an axis of samples: write"
                " torch.stack(samples).split(64), or take a DataLoader"
            )
        if any(bool(t.isinf().any()) for t in floats):
            _check_infinite(flatten(run(batch))[0], batch, number)


def _check_infinite(outputs: list[Tensor], batch: Inputs, number: int) -> None:
    """Refuse infinite features; an infinite mask is an input like any other."""
    if any(bool((t.isnan() | (t == torch.inf)).any()) for t in outputs if t.is_floating_point()):
        raise InputError(
            f"calibration batch {number} {batch} holds infinite values that make the model's output infinite or NaN: drop"
            " these samples"
        )
