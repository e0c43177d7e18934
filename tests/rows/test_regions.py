"""What lies above and below products, and where a mask is applied."""

import torch
from torch import Tensor, nn

from dendrofx.graph.capture import capture
from dendrofx.passes import MarkRows
from dendrofx.rows.regions import around_products, is_product, masked
from dendrofx.values.inputs import Inputs


class Scored(nn.Module):
    """An input that is masked, a Linear, and its values masked in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        live = (mask != 0)[..., None]
        y = self.fc(x.mul(live)).relu()
        filled = y.masked_fill(~live, -1e9).exp()
        return filled.sum(1), y.cumsum(1).sin() + torch.where(live, y, 0.0).neg(), (y.add(x) @ self.fc.weight).tanh()


def test_regions() -> None:
    example = Inputs.of({"x": torch.randn(3, 4, 8), "mask": torch.tensor([[1, 1, 0, 0]]).expand(3, -1)})
    gm = MarkRows("mask")(capture(Scored().eval().requires_grad_(False), example, shapes=True)).graph_module
    above, below = around_products(gm)
    found = masked(gm, "mask", below)
    order = [n for n in gm.graph.nodes if n.op.startswith("call_")]
    assert [n.name for n in order if is_product(n)] == ["fc", "matmul"]
    assert [n.name for n in order if n in above] == ["ne", "unsqueeze", "mul", "fc", "relu", "add_1", "matmul"]
    assert [n.name for n in order if n in below] == [
        *("fc", "relu", "masked_fill", "exp", "where", "neg", "add", "add_1", "matmul", "tanh")
    ]
    assert [n.name for n in order if n in found] == ["masked_fill", "exp", "where", "neg"]
