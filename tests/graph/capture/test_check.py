"""Verification: what counts as equal, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.graph.capture.check import DiffersError, Twin, verify
from dendrofx.graph.capture.prepare import copy_of
from dendrofx.graph.capture.variants import variants
from dendrofx.values.difference import difference
from dendrofx.values.inputs import Inputs
from dendrofx.values.numerics import rounding
from dendrofx.values.outputs import flatten
from tests.models import Mlp

IDS = torch.arange(1, 33).reshape(4, 8)
MASK = (torch.arange(8) < torch.tensor([8, 5, 3, 1])[:, None]).long()


@pytest.mark.parametrize(
    ("a", "b", "far"),
    [
        (torch.tensor([2.0, -4.0]), torch.tensor([2.0, -3.0]), 0.25),
        (torch.tensor([2.0]), torch.tensor([[2.0]]), torch.inf),
        (torch.tensor([2.0]), torch.tensor([2.0]).double(), torch.inf),
        (torch.tensor([2]), torch.tensor([3]), torch.inf),
        (torch.tensor([torch.nan, torch.inf]), torch.tensor([torch.nan, torch.inf]), 0.0),
        (torch.tensor([torch.nan, 1.0]), torch.tensor([1.0, torch.nan]), torch.inf),
        (torch.tensor([torch.inf, 2.0]), torch.tensor([torch.inf, 1.0]), 0.5),
        (torch.tensor([torch.inf]), torch.tensor([-torch.inf]), torch.inf),
        (torch.zeros(2), torch.full((2,), 1e-6), 1e24),
        (torch.zeros(0), torch.zeros(0), 0.0),
        ((torch.ones(1), 3), (torch.ones(1), 4), torch.inf),
        ((torch.ones(1),), [torch.ones(1)], torch.inf),
    ],
)
def test_difference(a: Any, b: Any, far: float) -> None:
    assert difference(flatten(a), flatten(b)) == pytest.approx(far)


def against(model: nn.Module, run: Callable[[Inputs], Any], *twins: Twin, example: Any = None) -> tuple[float, str]:
    inputs = Inputs.of(torch.randn(4, 16)) if example is None else Inputs.of(example)
    return verify(model, run, variants(inputs), twins)


def test_equal() -> None:
    model = Mlp().eval()
    assert against(model, lambda inputs: inputs.call(model)) == (0.0, "")


GENERIC = (
    ": its forward does something at trace time that it does not do per call. Transform the submodule that holds the Linears"
    " instead, e.g. model.encoder = dendrofx.transform(model.encoder)"
)


def test_a_difference_without_a_reason_is_refused_however_small() -> None:
    model = Mlp().eval()
    with pytest.raises(DiffersError) as caught:
        against(model, lambda inputs: inputs.call(model) * (1 + 1e-6))
    assert str(caught.value).startswith(
        "the captured graph of Mlp differs from the model on (float32[4, 16]) (largest difference "
    )
    assert str(caught.value).endswith(f" of the largest output){GENERIC}")
    assert caught.value.variant == ""


def test_the_variant_is_named() -> None:
    model = Mlp().eval()
    with pytest.raises(
        DiffersError, match=r"on \(float32\[1, 16\]\) with one sample \(largest difference 1 of"
    ) as caught:
        against(model, lambda inputs: inputs.call(model) * min(inputs.samples - 1, 1))
    assert caught.value.variant == " with one sample"

    def fails(inputs: Inputs) -> Tensor:
        if inputs.samples == 3:
            raise RuntimeError("three\nlines")
        return model(*inputs.args)  # type: ignore[no-any-return]

    with pytest.raises(
        DiffersError, match=r"^the captured graph of Mlp fails on \(float32\[3, 16\]\) with three samples: three$"
    ):
        against(model, fails)


class Moved(nn.Module):
    """A model, times a factor near one."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor  # type: ignore[no-any-return]


def test_rounding_needs_a_twin_with_the_same_bits() -> None:
    model = Mlp().eval()
    idle, small, more = Moved(model, 1.0), Moved(model, 1 + 1e-6), Moved(model, 1 + 2e-6)
    twins = [Twin(idle, "changes nothing"), Twin(small, "moves a little"), Twin(more, "and more")]
    far, reason = against(model, lambda inputs: inputs.call(small), *twins)
    assert 0 < far < 2e-6
    assert reason == "moves a little"
    assert against(model, lambda inputs: inputs.call(more), *twins)[1] == "moves a little; and more"
    with pytest.raises(DiffersError):
        against(model, lambda inputs: inputs.call(Moved(model, 1 + 3e-6)), *twins)


def test_more_than_rounding_is_refused_with_the_twins_reason() -> None:
    model = Mlp().eval()
    far = Moved(model, 1 + 10 * rounding())
    with pytest.raises(DiffersError, match=r"of the largest output\): moves a lot\. Transform the submodule "):
        against(model, lambda inputs: inputs.call(far), Twin(far, "moves a lot"))


class Picky(nn.Module):
    """Rejects fewer than eight tokens, and gives NaN where every mask is empty."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        if ids.size(1) < 8:
            raise ValueError("too short")
        return ids * mask / mask.sum()


def test_variants_that_the_model_rejects_are_left_out() -> None:
    seen: list[str] = []

    def run(inputs: Inputs) -> Tensor:
        seen.append(str(inputs))
        return inputs.call(Picky())  # type: ignore[no-any-return]

    assert against(Picky(), run, example={"ids": IDS, "mask": MASK}) == (0.0, "")
    assert not any("7]" in shapes or "6]" in shapes for shapes in seen)
    assert len(seen) == 8


def test_an_example_that_the_model_rejects_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^too short$"):
        against(Picky(), lambda inputs: None, example={"ids": IDS[:, :4], "mask": MASK[:, :4]})


def test_nan_of_the_example_itself_is_compared() -> None:
    model = Mlp().eval()
    nan = torch.full((2, 16), torch.nan)
    assert against(model, lambda inputs: inputs.call(model), example=nan) == (0.0, "")
    with pytest.raises(DiffersError, match="largest difference inf"):
        against(model, lambda inputs: inputs.call(model).nan_to_num(), example=nan)


def test_a_copy_without_gradients_shares_memory() -> None:
    model = Mlp().eval()
    twin = copy_of(model)
    assert type(twin) is Mlp
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in model.parameters()]
