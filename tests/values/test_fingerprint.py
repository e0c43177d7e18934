"""Fingerprints: equal for equal models and data, other for everything that a plan depends on."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dendrofx.values.fingerprint import LENGTH, data_fingerprint, model_fingerprint
from dendrofx.values.inputs import Inputs
from tests.models import Mlp


class Holder(nn.Module):
    """A parameter, a buffer that is saved and one that is not, and settings that are no tensor."""

    def __init__(self, scale: float = 1.0, hidden: float = 2.0, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        nn.init.constant_(self.fc.weight, 0.5)
        nn.init.zeros_(self.fc.bias)
        self.act = activation or nn.GELU()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x)) * self.scale * self.hidden  # type: ignore[no-any-return]


def test_the_same_model_has_the_same_fingerprint() -> None:
    model = Mlp().eval()
    print_ = model_fingerprint(model)
    assert len(print_) == LENGTH == 16
    assert int(print_, 16) >= 0
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert model_fingerprint(same) == print_
    other = Mlp().eval()
    assert model_fingerprint(other) != print_
    other.load_state_dict(model.state_dict())
    assert model_fingerprint(other) == print_
    model(torch.randn(3, 16))
    model.train()
    assert model_fingerprint(model.requires_grad_(False)) == print_, "weights alone count"


def bias_bit(model: Holder) -> None:
    with torch.no_grad():
        model.fc.bias[1] = 1e-30


def swapped(model: Holder) -> None:
    model.fc.weight, model.fc.bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.full((2, 2), 0.5))


def module_of(name: str) -> Callable[[Holder], None]:
    return lambda model: setattr(model, name, nn.Identity())


@pytest.mark.parametrize("change", [
    bias_bit,
    swapped,
    module_of("more"),
    lambda model: model.double(),
    lambda model: model.fc.weight.data.neg_(),
    lambda model: model.scale.fill_(1.5),
    lambda model: model.hidden.fill_(1.5),
    lambda model: setattr(model, "act", nn.ReLU()),
    lambda model: setattr(model, "act", nn.GELU(approximate="tanh")),
    lambda model: setattr(model.fc, "bias", None),
], ids=["a bit", "swapped", "another module", "dtype", "sign", "buffer", "buffer that is not saved", "activation",
        "activation's setting", "no bias"])  # fmt: skip
def test_every_change_of_a_model_shows(change: Callable[[Holder], object]) -> None:
    model = Holder()
    before = model_fingerprint(model)
    assert model_fingerprint(Holder()) == before
    change(model)
    assert model_fingerprint(model) != before


def test_dtypes_of_parameters_and_shapes_without_elements() -> None:
    def holding(*shape: int, dtype: torch.dtype = torch.float32) -> str:
        return model_fingerprint(nn.ParameterList([nn.Parameter(torch.empty(shape, dtype=dtype))]))

    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    prints = [holding(3, 0), holding(0, 3), *[holding(0, dtype=d) for d in kinds]]
    assert len(set(prints)) == len(prints)
    assert model_fingerprint(nn.ReLU()) != model_fingerprint(nn.GELU())


# ------------------------------------------------------------------------------------------------------------ data


def of(*batches: object) -> str:
    return data_fingerprint([Inputs.of(b) for b in batches])


def test_data_by_values_shapes_dtypes_and_order() -> None:
    a, b = torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3) + 1
    assert of(a, b) == of(a.clone(), b.clone())
    prints = [
        of(a, b),
        of(b, a),
        of(torch.cat([a, b])),
        of(a),
        of(a.reshape(3, 2), b),
        of(a.double(), b),
        of(a.int(), b),
        of(),
    ]
    assert len(set(prints)) == len(prints)


def test_strided_and_other_tensors() -> None:
    a = torch.arange(12.0).reshape(3, 4)
    assert of(a.t()) == of(a.t().contiguous())
    assert of(a[:, ::2]) == of(a[:, ::2].clone())
    assert of(torch.tensor(1.0)) != of(torch.tensor(2.0))
    assert of(torch.zeros(0, 3)) != of(torch.zeros(0, 4))
    assert of(torch.tensor([True, False])) != of(torch.tensor([True, True]))
    assert of(a.bfloat16()) == of(a.bfloat16())


def test_other_values_of_a_batch_count_too() -> None:
    """The scale that a batch is called with changes what every site sees."""
    x = torch.ones(2, 3)
    assert of((x, 1.0)) != of((x, 2.0))
    assert of({"x": x, "y": 2 * x}) != of({"y": x, "x": 2 * x})
