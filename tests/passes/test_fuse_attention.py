"""FuseAttention: what is attention becomes one op, what only looks like it stays."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.graph.show import graph_text
from dendrofx.passes import FuseAttention
from dendrofx.values.inputs import Inputs
from tests.check import OTHER_GEMM, assert_same_output
from tests.rows.models import encoder, padded

aten = torch.ops.aten
Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2)


def future(m: Tensor) -> Tensor:
    return torch.ones(m.size(3), m.size(3), dtype=torch.bool).triu(1)[None, None]


def two_users(q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> Tensor:
    s = scores(q, k)
    return (s + m).softmax(-1) @ v + s.sum(-1, keepdim=True)


def two_users_of_weights(q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> Tensor:
    w = scores(q, k).softmax(-1)
    return w @ v + w.amax(-1, keepdim=True)


def written(q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> Tensor:
    q = q * 1
    y = scores(q, k).softmax(-1) @ v
    return y + q.add_(1)


FUSED: dict[str, Form] = {
    "plain": lambda q, k, v, m: scores(q, k).softmax(-1) @ v,
    "scaled": lambda q, k, v, m: (scores(q, k) * 0.3).softmax(-1) @ v,
    "divided": lambda q, k, v, m: (scores(q, k) / 3).softmax(3) @ v,
    "scaled query": lambda q, k, v, m: scores(q * 0.3, k).softmax(-1) @ v,
    "masked": lambda q, k, v, m: (scores(q, k) + m).softmax(-1) @ v,
    "scaled and masked": lambda q, k, v, m: (scores(q, k) * 0.3 + m).softmax(-1) @ v,
    "a bias of heads": lambda q, k, v, m: (
        (scores(q, k) + torch.arange(2.0)[:, None, None, None].transpose(0, 1)).softmax(-1) @ v
    ),
    "a bool mask that is added": lambda q, k, v, m: (scores(q, k) + (m < 0)).softmax(-1) @ v,
    "filled": lambda q, k, v, m: scores(q, k).masked_fill(m < 0, -1e9).softmax(-1) @ v,
    "filled, causal": lambda q, k, v, m: (scores(q, k) / 2).masked_fill(future(m), -torch.inf).softmax(-1) @ v,
    "kept": lambda q, k, v, m: torch.where(m == 0, scores(q, k), -3e38).softmax(-1) @ v,
    "sees nothing": lambda q, k, v, m: scores(q, k).masked_fill(m <= 0, -1e4).softmax(-1) @ v,
    "casts that change nothing": lambda q, k, v, m: (
        scores(q, k).softmax(-1, torch.float32).to(torch.float32).contiguous() @ v
    ),
    "transposed by position": lambda q, k, v, m: (q @ k.transpose(3, 2)).softmax(-1) @ v,
    "other features": lambda q, k, v, m: scores(q, k).softmax(-1) @ v[..., :2],
}
LEFT: dict[str, Form] = {
    "no softmax of keys": lambda q, k, v, m: scores(q, k).softmax(2) @ v,
    "keys not transposed": lambda q, k, v, m: (q.transpose(2, 3) @ k).softmax(-1) @ v.transpose(2, 3),
    "other axes transposed": lambda q, k, v, m: (
        (q.transpose(1, 3) @ k.transpose(1, 2).transpose(1, 3)).softmax(-1) @ v.transpose(1, 3)
    ),
    "weights on the right": lambda q, k, v, m: v.transpose(2, 3) @ scores(q, k).softmax(-1),
    "no product after it": lambda q, k, v, m: scores(q, k).softmax(-1).sum(-1),
    "no product before it": lambda q, k, v, m: (scores(q, k) - 1).softmax(-1) @ v,
    "scaled after the mask": lambda q, k, v, m: ((scores(q, k) + m) * 0.3).softmax(-1) @ v,
    "scaled by a tensor": lambda q, k, v, m: (scores(q, k) * torch.full((1,), 0.3)).softmax(-1) @ v,
    "part of the mask": lambda q, k, v, m: torch.add(scores(q, k), m, alpha=0.5).softmax(-1) @ v,
    "a number for a mask": lambda q, k, v, m: (scores(q, k) + 1.0).softmax(-1) @ v,
    "a mask of two axes": lambda q, k, v, m: (scores(q, k) + m[0, 0]).softmax(-1) @ v,
    "filled with little": lambda q, k, v, m: scores(q, k).masked_fill(m < 0, -100.0).softmax(-1) @ v,
    "scores where it masks": lambda q, k, v, m: torch.where(m < 0, -1e9, scores(q, k)).softmax(-1) @ v,
    "in float64": lambda q, k, v, m: scores(q, k).softmax(-1, torch.float64).to(torch.float32) @ v,
    "a mask of float64": lambda q, k, v, m: (scores(q, k) + m.double()).softmax(-1).to(torch.float32) @ v,
    "in bfloat16": lambda q, k, v, m: (scores(q, k).softmax(-1).to(torch.bfloat16).to(torch.float32)) @ v,
    "scores have another user": two_users,
    "weights have another user": two_users_of_weights,
    "the query is written in place": written,
    "heads of keys repeat": lambda q, k, v, m: scores(q, k[:, :1]).softmax(-1) @ v,
    "the mask has more heads": lambda q, k, v, m: (
        (scores(q[:, :1], k[:, :1]) + torch.arange(2.0)[None, :, None, None]).softmax(-1) @ v[:, :1]
    ),
    "no heads": lambda q, k, v, m: scores(q[:, 0], k[:, 0]).softmax(-1) @ v[:, 0],
    "dropout": lambda q, k, v, m: F.dropout(scores(q, k).softmax(-1), 1.0, True) @ v,
}


class Many(nn.Module):
    """All forms of one table, in one graph."""

    def __init__(self, forms: dict[str, Form]) -> None:
        super().__init__()
        self.forms = list(forms.values())

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (torch.tanh, torch.sin, torch.cos))
        bias = torch.where(mask == 0, -1e30, 0.0)[:, None, None]
        return tuple(form(q, k, v, bias) for form in self.forms)


class Made:
    """A table of forms, captured and rewritten."""

    def __init__(self, forms: dict[str, Form]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.example = {"x": torch.randn(3, 5, 8, generator=generator), "mask": (torch.arange(5) < 4).expand(3, -1)}
        self.model = Many(forms).eval()
        self.gm = capture(self.model, Inputs.of(self.example), shapes=True)
        self.names = list(forms)
        self.text = graph_text(self.gm)
        self.result = FuseAttention()(self.gm)

    def outputs(self) -> dict[str, fx.Node]:
        result = next(n for n in self.gm.graph.nodes if n.op == "output").args[0]
        return dict(zip(self.names, result, strict=True))


@pytest.fixture(scope="module")
def fused() -> Made:
    return Made(FUSED)


@pytest.fixture(scope="module")
def left() -> Made:
    return Made(LEFT)


@pytest.mark.parametrize("form", FUSED)
def test_fused(fused: Made, form: str) -> None:
    node = fused.outputs()[form]
    assert node.target is aten.scaled_dot_product_attention
    assert node.name in [name for change in fused.result.changed for name in change.nodes]
    i = fused.names.index(form)
    with torch.no_grad():
        torch.testing.assert_close(fused.gm(**fused.example)[i], fused.model(**fused.example)[i], **OTHER_GEMM)


def test_left_as_it_is(left: Made) -> None:
    assert not left.result.modified
    assert graph_text(left.gm) == left.text
    assert_same_output(left.model, left.gm, left.example)
    assert len([n for n in left.gm.graph.nodes if n.target is aten.softmax]) == len(LEFT)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", ["masked", "filled", "filled, infinite", "kept"])
@pytest.mark.parametrize("low", [-1e4, -torch.inf])
def test_types_and_rows_that_see_nothing(dtype: torch.dtype, form: str, low: float) -> None:
    """The mask is of the scores' type; the softmax of nothing but -inf stays NaN."""
    forms: dict[str, Form] = {
        "masked": lambda q, k, v, m: (scores(q, k) + torch.where(m, 0.0, low).to(q.dtype)).softmax(-1) @ v,
        "filled": lambda q, k, v, m: scores(q, k).masked_fill(~m, low).softmax(-1) @ v,
        "filled, infinite": lambda q, k, v, m: scores(q, k).masked_fill(~m, -torch.inf).softmax(-1, dtype=q.dtype) @ v,
        "kept": lambda q, k, v, m: torch.where(m, scores(q, k), torch.tensor(0.0, dtype=q.dtype) + low).softmax(-1) @ v,
    }

    class Model(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (torch.tanh, torch.sin, torch.cos))
            return forms[form](q, k, v, mask[:, None, None])

    example = {"x": torch.randn(3, 5, 8).to(dtype), "mask": torch.arange(5) < torch.tensor([5, 3, 2])[:, None]}
    gm = FuseAttention()(capture(Model().eval(), Inputs.of(example), shapes=True)).graph_module
    assert any(n.target is aten.scaled_dot_product_attention for n in gm.graph.nodes) is (form != "kept")
    example["mask"][1] = False
    with torch.no_grad():
        wanted, got = Model()(**example), gm(**example)
    allowed = 4 * torch.finfo(dtype).eps * float(wanted.nan_to_num().abs().max())
    rounds = dtype is torch.bfloat16 and low == -1e4  # the scores of the row that sees nothing were rounded to 64s
    kept = [0, 2] if rounds else [0, 1, 2]
    torch.testing.assert_close(got[kept], wanted[kept], rtol=0, atol=allowed, equal_nan=True)
    assert bool(wanted[1].isnan().all()) is (low == -torch.inf or form == "filled, infinite")


def test_layers_share_one_mask() -> None:
    model, example = encoder("eager", 2), padded([5, 2, 3], 5)
    gm = FuseAttention()(capture(model, Inputs.of(example), shapes=True)).graph_module
    calls = [n for n in gm.graph.nodes if n.target is aten.scaled_dot_product_attention]
    assert [n.name for n in calls] == ["matmul_1_attention", "matmul_3_attention"]
    assert len({n.args[3] for n in calls}) == 1  # one mask, cast once
    assert not [n for n in gm.graph.nodes if n.target in (aten.softmax, aten.matmul)]
    assert_same_output(model, gm, example, OTHER_GEMM)
