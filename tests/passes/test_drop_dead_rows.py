"""DropDeadRows: where rows are gathered and scattered, and what stays padded."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.graph.show import graph_text
from dendrofx.lowering.script import script
from dendrofx.passes import DropDeadRows, MarkRows, run_passes
from dendrofx.runtime.attention import attend_rows, plan_attention
from dendrofx.runtime.live import count_live, live_rows, put_rows, take_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import LIVE
from tests.check import OTHER_GEMM, assert_same_output
from tests.rows.models import encoder, padded

aten = torch.ops.aten


def captured(model: nn.Module, example: dict[str, Tensor]) -> fx.GraphModule:
    return capture(model.eval().requires_grad_(False), Inputs.of(example), shapes=True)


def dropped(gm: fx.GraphModule, mask: str = "attention_mask", **options: Any) -> fx.GraphModule:
    """A copy of `gm`, rewritten."""
    own = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    return run_passes(own, [MarkRows(mask), DropDeadRows(mask, **options)]).graph_module


def calls(gm: fx.GraphModule, target: object) -> list[fx.Node]:
    return [n for n in gm.graph.nodes if n.target is target]


def live_linears(gm: fx.GraphModule) -> list[str]:
    return [str(n.target) for n in gm.graph.nodes if n.op == "call_module" and LIVE in n.meta]


@pytest.fixture(scope="module")
def two_layers() -> fx.GraphModule:
    return captured(encoder(layers=2), padded([6, 3, 5], 6))


def test_an_encoder_lives_in_the_live_world(two_layers: fx.GraphModule) -> None:
    gm = dropped(two_layers)
    assert len(live_linears(gm)) == 12
    taken = [(n.args[0].name, n.args[2:]) for n in calls(gm, take_rows)]
    assert taken == [("input_ids", (0, 1)), ("embedding_1", (-1, 0))]
    assert [n.args[0].name for n in calls(gm, put_rows)] == ["layer_norm_3"]
    assert len(calls(gm, live_rows)) == len(calls(gm, plan_attention)) == 1
    assert len(calls(gm, attend_rows)) == 2
    assert not calls(gm, aten.scaled_dot_product_attention)


def test_padded_attention(two_layers: fx.GraphModule) -> None:
    """Three values are scattered and one gathered for each; views stay on their side of the crossing."""
    gm = dropped(two_layers, attend=False)
    assert len(live_linears(gm)) == 12
    assert len(calls(gm, aten.scaled_dot_product_attention)) == 2
    assert [n.args[2:] for n in calls(gm, put_rows)] == [(0, 2)] * 6 + [(0, 1)]
    assert len(calls(gm, take_rows)) == 4
    assert not calls(gm, attend_rows) + calls(gm, plan_attention)


@pytest.mark.parametrize("attend", [True, False])
@pytest.mark.parametrize("ready", [script, lambda gm: gm], ids=["scripted", "eager"])
def test_output_is_that_of_live_rows(two_layers: fx.GraphModule, attend: bool, ready: Any) -> None:
    run = ready(dropped(two_layers, attend=attend))
    for example in (padded([6, 3, 5], 6), padded([2, 7], 7, left=True), padded([1], 1), padded([0, 4], 5)):
        alive = example["attention_mask"].bool()
        got, wanted = run(**example), two_layers(**example)
        kept = alive | ~alive.any(1, keepdim=True)
        torch.testing.assert_close(got[kept], wanted[kept], **OTHER_GEMM)
        assert not got[~kept].any()


def test_a_batch_without_padding(two_layers: fx.GraphModule) -> None:
    assert_same_output(two_layers, dropped(two_layers), padded([6, 6, 6], 6), OTHER_GEMM)


def test_an_inverted_mask(two_layers: fx.GraphModule) -> None:
    """Rows are live where it is zero: here that is padding, whose values are then the only ones kept."""
    example = padded([6, 3, 5], 6)
    got = dropped(two_layers, inverted=True, attend=False)(**example)
    dead = example["attention_mask"] == 0
    assert got[1:][dead[1:]].any(-1).all()
    assert not got[1:][~dead[1:]].any()


class Crossing(nn.Module):
    """Two Linears that read one padded value, and two running sums of one live value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        before = (x * mask[..., None]).cumsum(1)
        y = F.gelu(self.a(before)) + self.b(before)
        return y.cumsum(1) - y.cumsum(1).cumsum(1), self.c(y.cumsum(1).relu())


def test_each_value_crosses_once_and_no_region_mixes_rows() -> None:
    example = {"x": torch.randn(2, 5, 8), "mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])}
    model = Crossing()
    gm = dropped(captured(model, example), "mask")
    assert [n.args[0].name for n in calls(gm, take_rows)] == ["cumsum", "cumsum_4"]
    assert [n.args[0].name for n in calls(gm, put_rows)] == ["add", "c"]
    assert live_linears(gm) == ["a", "b", "c"]
    assert not [n for n in calls(gm, aten.cumsum) if LIVE in n.meta]
    alive = example["mask"].bool()
    for got, wanted in zip(gm(**example), model(**example), strict=True):
        torch.testing.assert_close(got[alive], wanted[alive], **OTHER_GEMM)


class Sizes(nn.Module):
    """Sizes as arguments that count rows, and as values that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.fc(x * mask[..., None]).view(x.size(0), x.size(1), 2, -1).flatten(2) / x.size(1)
        z = torch.full((x.size(0), x.size(1), 1), 2.0) + self.fc.bias.expand(x.size(0), x.size(1), -1)
        return (y[:, : x.size(1)] + z[..., None].repeat(1, 1, 1, 2).mean(-1)).relu() * x.size(0)


def test_sizes_that_count_rows_and_sizes_that_are_values() -> None:
    example = {"x": torch.randn(3, 4, 8), "mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])}
    gm = captured(Sizes(), example)
    new = dropped(gm, "mask")
    count = calls(new, count_live)[0]
    reshaped = next(n for n in calls(new, aten.reshape) if LIVE in n.meta)
    assert reshaped.args[1] == [1, count, 2, -1]
    assert [type(n.args[1]) for n in calls(new, aten.div)] == [fx.Node]
    assert calls(new, aten.div)[0].args[1] is not count
    alive = example["mask"].bool()
    torch.testing.assert_close(new(**example)[alive], gm(**example)[alive], **OTHER_GEMM)


class SharedKeys(nn.Module):
    """Every head of queries reads one head of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2), self.k(x)[:, None]
        return F.scaled_dot_product_attention(q, k, k, (mask != 0)[:, None, None]).transpose(1, 2).flatten(2)


def test_attention_with_fewer_heads_of_keys_stays_padded() -> None:
    example = {"x": torch.randn(2, 4, 8), "mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}
    gm = captured(SharedKeys(), example)
    new = dropped(gm, "mask")
    assert not calls(new, attend_rows)
    alive = example["mask"].bool()
    torch.testing.assert_close(new(**example)[alive], gm(**example)[alive], **OTHER_GEMM)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("mask", "there is no input 'mask': the model's are input_ids, attention_mask, weights"),
        ("weights", "'weights' must be shaped [batch, tokens]; its layout is 'bt?'"),
    ],
)
def test_requires_a_mask_of_rows(mask: str, message: str) -> None:
    gm = MarkRows()(Weighted.captured()).graph_module
    before = graph_text(gm)
    with pytest.raises(PassError) as caught:
        DropDeadRows(mask)(gm)
    assert str(caught.value) == message
    assert graph_text(gm) == before


class Weighted(nn.Module):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, weights: Tensor) -> Tensor:
        return (input_ids * attention_mask)[..., None] * weights

    @staticmethod
    def captured() -> fx.GraphModule:
        return captured(Weighted(), {**padded([4, 2], 4), "weights": torch.ones(2, 4, 3)})


def test_requires_verdicts(two_layers: fx.GraphModule) -> None:
    with pytest.raises(PassError, match=r"^the graph has no row verdicts: run MarkRows first$"):
        DropDeadRows("attention_mask")(two_layers)


def test_claim_no_live_node_reads_a_padded_value(two_layers: fx.GraphModule) -> None:
    gm = dropped(two_layers, attend=False)
    calls(gm, aten.scaled_dot_product_attention)[0].meta[LIVE] = True
    with pytest.raises(PassError, match=r"^%scaled_dot_product_attention runs on live rows and reads a padded value$"):
        DropDeadRows("attention_mask").ensures(gm)
