"""What is given to run the model on: trees of tensors, masks, shared inputs; and what to write instead of what cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.graph.given import Given
from dendrofx.values.inputs import Inputs
from dendrofx.values.samples import shared_inputs
from tests.asked import asked
from tests.graph.capture.models import WIDTH, Base

X = torch.randn(12, WIDTH)


class Two(Base):
    """Two inputs, joined by `rule`."""

    def __init__(self, rule: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor, other: Tensor) -> Any:
        return self.rule(self.mlp(x), other)


def normed(adjacency: Tensor, h: Tensor) -> Tensor:
    return (adjacency @ h) + h


# By what is shared, the rule and the second input beside x of 12 samples.
SHARED: dict[str, tuple[Callable[[Tensor, Tensor], Any], Tensor, set[str]]] = {
    "nothing": (lambda h, o: h + o, torch.randn(12, WIDTH), set()),
    "a weight of the batch's size by chance": (lambda h, o: h @ o, torch.randn(WIDTH, 12), {"other"}),
    "a table of as many rows": (lambda h, o: h @ o.t(), torch.randn(12, WIDTH), {"other"}),
    "other documents": (lambda h, o: h @ o.t(), torch.randn(5, WIDTH), {"other"}),
    "a number": (lambda h, o: h * o, torch.tensor(2.0), {"other"}),
    "all of it, a graph": (lambda h, o: normed(o, h), torch.rand(12, 12), {"x", "other"}),
}


@pytest.mark.parametrize("kind", SHARED)
@torch.no_grad()
def test_inputs_that_all_samples_share_are_found(kind: str) -> None:
    rule, other, shared = SHARED[kind]
    model = Two(rule).eval()
    given = Inputs((), (("x", X), ("other", other)))
    assert shared_inputs(lambda inputs: inputs.call(model), given) == shared


def test_an_infinite_mask_is_an_input_like_any_other() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    batches = [(torch.randn(16, 7, WIDTH), mask) for _ in range(8)]
    routed = dendrofx.transform(
        model, calibration=batches, light=dendrofx.LowRank(2), options=dendrofx.Options(tune_seconds=0)
    )
    assert routed.plan.samples == (48, 16, 16, 48)
    torch.testing.assert_close(routed(*batches[0]), routed.forward(*batches[0]))


# ------------------------------------------------------------------------------------------------------- what is refused


class Frame:
    """Looks like a DataFrame, of which no package is needed."""

    def __array__(self) -> Any:
        return np.zeros((3, 16))


Frame.__module__ = "pandas.core"
Frame.__qualname__ = Frame.__name__ = "DataFrame"


def loader(count: int = 8) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(8, WIDTH), torch.zeros(8, dtype=torch.long)) for _ in range(count)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a frame": ({"calibration": Frame()}, "write torch.from_numpy(frame.to_numpy(dtype='float32')).split(64)"),
    "an array": ({"calibration": np.zeros((40, WIDTH))}, "got a numpy.ndarray: write torch.from_numpy(calibration).split(64)"),
    "arrays": ({"calibration": [np.zeros((8, WIDTH))]}, "a dict of tensors, got numpy.ndarray: write torch.from_numpy(batch)"),
    "a tuple of arrays": ({"calibration": [(np.zeros((8, WIDTH)),)]},
        "holds no tensor: (numpy.ndarray). Write torch.from_numpy(x) for each array"),
    "a list of dicts": ({"calibration": [[{"x": X[0]}, {"x": X[1]}]]},
        "no list of dicts: join its samples with torch.utils.data.default_collate(batch)"),
    "labels": ({"calibration": loader()},
        "too many positional arguments. If its last is a label, pass calibration=[x for x, _ in loader]"),
    "batches": ({"example_inputs": list(X.split(2))}, "arguments. Several batches go to calibration=, not to example_inputs="),
    "an iterator": ({"example_inputs": iter(X.split(2))}, "several batches go to calibration="),
    "samples": ({"calibration": list(torch.randn(52, WIDTH))},
        "one sample without an axis of samples: write torch.stack(samples).split(64), or take a DataLoader"),
    "a sparse tensor": ({"calibration": [X.to_sparse()]}, "holds a sparse tensor, which no graph takes: write x.to_dense()"),
    "infinite features": ({"calibration": [X, X.clone().fill_(torch.inf)]},
        "holds infinite values that make the model's output infinite or NaN: drop these samples"),
    "another flag": ({"calibration": [{"x": X}, {"x": X, "flag": True}]},
        "batch 1: Plain was captured with the inputs x and cannot take flag=True: "),
}  # fmt: skip


class Plain(Base):
    """One input and a flag."""

    def forward(self, x: Tensor, *, flag: bool = False) -> Tensor:
        return -self.mlp(x) if flag else self.mlp(x)


@pytest.mark.parametrize("kind", REFUSED)
def test_the_message_is_one_line_and_shows_the_fix(kind: str) -> None:
    options, fix = REFUSED[kind]
    with pytest.raises(dendrofx.InputError) as caught:
        dendrofx.transform(Plain().eval(), **asked(**options, tune_seconds=0))
    said = str(caught.value)
    assert fix in said
    assert "\n" not in said
    assert len(said) < 400
    assert "tensor(" not in said


def test_a_label_that_the_model_would_take_for_a_mask_is_guessed() -> None:
    class Masked(Base):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.mlp(x) if mask is None else self.mlp(x) * mask

    with pytest.raises(
        dendrofx.InputError, match=r"Where the last of a batch is a label: calibration=\[x for x, _ in loader\]$"
    ):
        dendrofx.transform(Masked().eval(), calibration=[(torch.randn(8, WIDTH), torch.zeros(8)) for _ in range(8)])


def test_outputs_without_a_row_per_sample_are_refused() -> None:
    model = Two(lambda h, o: (h - o).square().mean()).eval()
    with pytest.raises(
        dendrofx.InputError, match=r"^the model returns 'output' shaped \[\] for 8 samples: a deviation is per sample"
    ):
        dendrofx.transform(model, calibration=[(torch.randn(8, WIDTH), torch.randn(8, WIDTH)) for _ in range(8)])


def test_the_callers_batches_are_never_run_on() -> None:
    """Even where only some batches are written to, which the example does not show."""

    class Clamps(Base):
        def forward(self, x: Tensor) -> Tensor:
            if bool(x.max() > 100):
                x.clamp_(max=100)
            return self.mlp(x)

    batches = [torch.randn(8, WIDTH) for _ in range(8)]
    batches[5] *= 1000
    before = [b.clone() for b in batches]
    with pytest.raises(dendrofx.DendrofxError):
        dendrofx.transform(Clamps().eval(), calibration=batches, options=dendrofx.Options(tune_seconds=0))
    assert all(map(torch.equal, batches, before))


WRAPPED: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "compiled": (lambda m: torch.compile(m), "torch.compile taken off"),
    "parallel": (nn.DataParallel, "DataParallel taken off"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapped_model_is_unwrapped_and_it_is_said(kind: str) -> None:
    wrap, said = WRAPPED[kind]
    model = Plain().eval()
    routed = dendrofx.transform(wrap(model).eval(), X, budget=0, options=dendrofx.Options(decide=False))
    assert routed.plan.capture.endswith(f"; {said}")
    assert torch.equal(routed(X), model(X))


def exported(model: nn.Module) -> Any:
    return torch.export.export(model, (X,))


NO_MODELS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "exported": (exported, "the nn.Module that was exported, not its ExportedProgram"),
    "scripted": (lambda m: torch.jit.trace(m, X), "the nn.Module before torch.jit.script or trace: this is"),
    "partly": (lambda m: nn.Sequential(torch.jit.trace(m, X), nn.Linear(16, 2)).eval(), "its submodule '0' is TorchScript already"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_MODELS)
def test_what_is_no_model_any_more_is_told_what_to_pass(kind: str) -> None:
    wrap, said = NO_MODELS[kind]
    with pytest.raises(dendrofx.InputError) as caught:
        dendrofx.transform(wrap(Plain().eval()), X)
    assert said in str(caught.value)


def test_what_was_given_is_read_once_and_marked() -> None:
    model = Two(lambda h, o: h @ o.t()).eval()
    given = Given.read(model, None, iter([(torch.randn(9, WIDTH), torch.randn(9, WIDTH))] * 8))
    assert given.batches is not None
    assert {b.shared for b in given.batches} == {frozenset({"other"})}
    assert [b.samples for b in given.batches] == [9] * 8
