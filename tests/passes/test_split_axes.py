"""SplitAxes: values with samples, tokens or heads folded into one axis, written with those apart."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.graph.shapes import tensors
from dendrofx.graph.show import graph_text
from dendrofx.passes import MarkRows, Pass, SplitAxes
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.values.inputs import Inputs
from tests.check import OTHER_GEMM, assert_same_output
from tests.models import Mlp
from tests.rows.models import symbolic

Function = Callable[["Reads", Tensor], Any]


def heads(m: "Reads", x: Tensor) -> Tensor:
    """As `nn.MultiheadAttention` folds them."""
    x = x.transpose(0, 1)
    x = x.reshape(x.size(0), x.size(1) * 2, 4).transpose(0, 1)
    return x.view(-1, 2, x.size(1), 4).softmax(-1)


def permuted(m: "Reads", x: Tensor) -> Tensor:
    """[tokens, batch * 2, 4] to [4, batch * 2, tokens] and apart."""
    y = x.transpose(0, 1).reshape(x.size(1), x.size(0) * 2, 4).permute(2, 1, 0)
    return y.reshape(4, x.size(0), 2, x.size(1)).exp()


def last_product(m: "Reads", x: Tensor) -> Tensor:
    """[batch, 2, tokens, 4] to all rows of 8, tokens first."""
    y = x.unflatten(-1, (2, 4)).permute(1, 0, 2, 3).reshape(-1, 8)
    return m.fc(y).view(x.size(1), x.size(0), 6).transpose(0, 1)


def read_elsewhere(m: "Reads", x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.fc(x.reshape(-1, 8))
    return y.view(x.size(0), -1, 6), y.cumsum(0)[:2]


def multiplied(m: "Reads", x: Tensor) -> Tensor:
    """Batches of matrices, one a head."""
    y = x.reshape(x.size(0), -1, 2, 4).transpose(1, 2).reshape(-1, x.size(1), 4)
    return torch.bmm(y, y.transpose(1, 2)).view(x.size(0), 2, x.size(1), -1)


def written(m: "Reads", x: Tensor) -> Tensor:
    x = x.transpose(0, 1) * 1
    y = x.transpose(0, 1).reshape(-1, 8).view(x.size(1), -1, 8)
    return y.mul_(2) + x.transpose(0, 1)


SPLIT: dict[str, Function] = {
    "heads": heads,
    "flat": lambda m, x: F.gelu(m.fc(x.reshape(-1, 8)) * 2).view(x.size(0), x.size(1), 6).relu(),
    "permuted": permuted,
    "refolded": lambda m, x: x.reshape(-1, 8).reshape(-1, 2, 4).reshape(x.size(0), x.size(1), 4, 2) * 2,
    "the last product": last_product,
    "by function": lambda m, x: F.linear(x.reshape(-1, 8), m.fc.weight).view(x.size(0), -1, 6) + 1,
}
LEFT: dict[str, Function] = {
    "returned": lambda m, x: m.fc(x.reshape(-1, 8)),
    "pooled": lambda m, x: m.fc(x.reshape(-1, 8)).mean(0),
    "read elsewhere": read_elsewhere,
    "rows of 6 are no rows of 8": lambda m, x: m.fc(x.reshape(-1, 8)).reshape(x.size(0), -1, 2).sum(-1),
    "joined": lambda m, x: torch.cat([x.reshape(-1, 8), x.reshape(-1, 8)], -1).view(x.size(0), -1, 16),
    "multiplied": multiplied,
    "written in place": written,
}


class Reads(nn.Module):
    """Functions of x, f32[batch, tokens, 8]."""

    def __init__(self, *functions: Function) -> None:
        super().__init__()
        self.functions, self.fc = functions, nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Any:
        found = [function(self, x) for function in self.functions]
        return found[0] if len(found) == 1 else found


def captured(*functions: Function) -> tuple[nn.Module, fx.GraphModule, dict[str, Tensor]]:
    model, example = Reads(*functions).eval(), {"x": torch.randn(3, 5, 8)}
    return model, symbolic(model, example), example


def folded(gm: fx.GraphModule) -> set[str]:
    return {n.name for n in gm.graph.nodes if any("*" in str(size) for s in tensors(n) for size in s)}


def test_split() -> None:
    model, gm, example = captured(*SPLIT.values())
    before = folded(gm)
    assert len(before) >= 2 * len(SPLIT)
    result = SplitAxes()(gm)
    assert before <= {c.site for c in result.changed}
    assert not folded(gm)
    assert_same_output(model, gm, example, OTHER_GEMM)
    assert_same_output(model, gm, {"x": torch.randn(2, 7, 8)}, OTHER_GEMM)


def test_rows_can_be_told() -> None:
    _, gm, example = captured(heads, SPLIT["flat"], last_product)
    assert [note.reason for note in RowAnalysis(gm).notes.values() if note.reason]
    analysis = RowAnalysis(SplitAxes()(gm).graph_module)
    assert not [note.reason for note in analysis.notes.values() if note.reason]
    analysis.check(Inputs.of(example))


@pytest.mark.parametrize("function", LEFT)
def test_left_as_it_is(function: str) -> None:
    model, gm, example = captured(LEFT[function])
    before = graph_text(gm)
    assert not SplitAxes()(gm).modified
    assert graph_text(gm) == before
    assert_same_output(model, gm, example, OTHER_GEMM)


def test_a_folded_value_that_is_itself_apart_is_no_new_node() -> None:
    _, gm, _ = captured(SPLIT["flat"])
    changed = {c.site: c.nodes for c in SplitAxes()(gm).changed}
    assert changed["reshape"] == ("x",)
    assert changed["view"] == changed["gelu"] == ("gelu_apart",)


def test_torchs_encoder_layer() -> None:
    """Every Linear and every attention of it has rows."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
    example = {"src": torch.randn(3, 5, 8), "src_key_padding_mask": torch.arange(5) >= torch.tensor([[5], [2], [4]])}
    gm = symbolic(layer, example)
    before = gm(**example)
    analysis = RowAnalysis(SplitAxes()(gm).graph_module, "src_key_padding_mask")
    products = [n for n in gm.graph.nodes if n.op == "call_module" or n.target is torch.ops.aten.linear]
    assert [analysis.layout(n) for n in products] == ["tb.", "tb.", "bt.", "bt."]
    assert all(analysis.row_wise(n) for n in products)
    attention = next(n for n in gm.graph.nodes if n.target is torch.ops.aten.scaled_dot_product_attention)
    assert [analysis.layout(n) for n in attention.args] == ["b.t.", "b.t.", "b.t.", "b..t"]
    assert all(analysis.row_wise(n) for n in attention.args)
    torch.testing.assert_close(gm(**example), before, **OTHER_GEMM)


@pytest.mark.parametrize("step", [SplitAxes(), MarkRows()], ids=str)
def test_a_graph_without_symbolic_shapes(step: Pass) -> None:
    with pytest.raises(PassError, match=r"^the graph has no symbolic shapes: capture it with shapes=True$"):
        step(capture(Mlp().eval()))
