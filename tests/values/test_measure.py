"""Deviation, agreement and multiply-adds against hand computation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendrofx.values.counts import activity, executed_macs, executed_work, site_activity, site_compute
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import agreement, counted_outputs, deviation, model_macs, outputs
from tests.models import Mlp

NAN, INF = math.nan, math.inf
COUNTS = {
    "a": {"rows": 10, "hard_rows": 2, "near_rows": 0, "light_rows": 10, "gate_macs": 30, "light_macs": 200,
          "full_macs": 400, "original_macs": 2000, "gate_work": 30, "light_work": 50, "full_work": 200},
    "b": {"rows": 20, "hard_rows": 15, "near_rows": 1, "light_rows": 5, "gate_macs": 0, "light_macs": 50,
          "full_macs": 1500, "original_macs": 2000, "gate_work": 0, "light_work": 25, "full_work": 1500},
}  # fmt: skip


@pytest.mark.parametrize(("reference", "output", "wanted"), [
    ([3.0, 4.0], [3.0, 4.5], 0.1),
    ([3.0, 4.0], [-3.0, -4.0], 2.0),
    ([3.0, 4.0], [3.0, 4.0], 0.0),
    ([0.0, 0.0], [0.0, 0.0], 0.0),
    ([0.0, 0.0], [0.0, 3e-12], 3.0),  # over 1e-12 instead of 0
    ([1.0, NAN], [1.0, NAN], 0.0),
    ([1.0, 0.0], [1.0, NAN], INF),
    ([1.0, NAN], [1.0, 0.0], INF),
    ([1.0, INF], [1.0, INF], 0.0),
    ([4.0, -INF], [5.0, -INF], 0.25),  # the finite entries still count
    ([1.0, INF], [1.0, -INF], INF),
    ([1.0, INF], [1.0, 7.0], INF),
    ([1.0, 0.0], [1.0, INF], INF),
    ([INF, NAN], [INF, NAN], 0.0),
    ([1e30, 1e30], [1e30, 2e30], math.sqrt(0.5)),
    ([1e-30, 0.0], [2e-30, 0.0], 1e-18),
    ([], [], 0.0),
])  # fmt: skip
def test_deviation_by_hand(reference: list[float], output: list[float], wanted: float) -> None:
    got = deviation(torch.tensor([reference]), torch.tensor([output]))
    assert got.dtype == torch.float64
    assert got.tolist() == [pytest.approx(wanted, rel=1e-6)]


def test_deviation_takes_samples_one_by_one() -> None:
    reference, output = torch.randn(5, 7), torch.randn(5, 7)
    alone = [float(deviation(a[None], b[None])) for a, b in zip(reference, output, strict=True)]
    assert deviation(reference, output).tolist() == pytest.approx(alone, rel=1e-12)
    assert deviation(reference[:0], output[:0]).shape == (0,)


def test_agreement() -> None:
    reference = torch.tensor([[1.0, 2.0], [5.0, 1.0], [0.0, 9.0], [2.0, 1.0]])
    output = torch.tensor([[0.0, 9.0], [1.0, 5.0], [0.0, 1.0], [3.0, 1.0]])
    assert agreement(reference, output) == 0.75
    assert agreement(reference, reference) == 1.0
    assert agreement(reference[:0], output[:0]) == 1.0


def test_outputs_are_one_row_per_sample() -> None:
    model, x = Mlp().eval(), torch.randn(10, 3, 16)
    (got,) = outputs(model, [Inputs.of(x[:4]), Inputs.of(x[4:])])
    assert not got.requires_grad
    torch.testing.assert_close(got, model(x).reshape(10, 24).detach())


def test_model_macs() -> None:
    model = Mlp(16, 32, 8).eval()
    assert model_macs(model, [Inputs.of(torch.randn(10, 16))]) == 10 * (16 * 32 + 32 * 8)
    both = [Inputs.of(torch.randn(10, 16)), Inputs.of(torch.randn(2, 5, 16))]
    assert model_macs(model, both) == 20 * (16 * 32 + 32 * 8)
    assert model_macs(nn.Linear(16, 4, bias=False), both[:1]) == 10 * 16 * 4
    assert model_macs(nn.ReLU(), both) == 0


class Attention(nn.Module):
    """Attention, a product of activations, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        heads = F.scaled_dot_product_attention(x, x, x)
        return self.conv(torch.matmul(heads, x.transpose(1, 2)).expand(-1, 4, -1))


def test_model_macs_of_attention_products_and_convolutions() -> None:
    x = torch.randn(2, 4, 5)
    attention, product, convolution = 2 * (2 * 4 * 4 * 5), 2 * 4 * 4 * 5, 2 * 4 * (4 * 6 * 3)
    assert model_macs(Attention(), [Inputs.of(x)]) == attention + product + convolution


def test_sums_over_sites_by_hand() -> None:
    assert executed_macs(COUNTS, original=10_000) == 10_000 - 4000 + 630 + 1550
    assert executed_macs({}, original=10_000) == 10_000
    assert executed_work(COUNTS, original=10_000) == 10_000 - 4000 + 280 + 1525
    assert executed_work({}, original=10_000) == 10_000
    assert site_activity(COUNTS["a"]) == 0.2
    assert site_activity(COUNTS["b"]) == 0.75
    assert site_compute(COUNTS["a"]) == 280 / 2000
    assert activity(COUNTS) == pytest.approx((0.2 * 2000 + 0.75 * 2000) / 4000)
    assert activity({}) == 1.0


def test_a_site_without_rows() -> None:
    none = dict.fromkeys(COUNTS["a"], 0)
    assert (site_activity(none), site_compute(none), activity({"a": none})) == (0.0, 0.0, 1.0)


class Counted(nn.Module):
    """Something with a `forward_counted`."""

    def forward_counted(self, x: Tensor) -> tuple[Tensor, dict[str, dict[str, int]]]:
        return x * 2, {"a": {"rows": len(x), "hard_rows": 1}}


def test_counts_are_summed_over_batches() -> None:
    x = torch.randn(7, 3)
    (got,), counts = counted_outputs(Counted(), [Inputs.of(x[:5]), Inputs.of(x[5:])])
    assert torch.equal(got, x * 2)
    assert counts == {"a": {"rows": 7, "hard_rows": 2}}
