"""DropDeadRows: where rows are gathered and scattered, and what stays padded."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.errors import PassError
from dendrofx.graph.show import graph_text
from dendrofx.lowering.script import script
from dendrofx.passes import DropDeadRows, MarkRows, run_passes
from dendrofx.runtime.attention import attend_rows, plan_attention
from dendrofx.runtime.live import count_live, live_rows, pad_rows, unpad_rows
from dendrofx.values.meta import LIVE
from tests.check import OTHER_GEMM
from tests.rows.models import OfRows, encoder, padded, ragged, symbolic

aten = torch.ops.aten


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
    return symbolic(encoder(layers=2), padded([6, 3, 5], 6))


def test_an_encoder_lives_in_the_live_world(two_layers: fx.GraphModule) -> None:
    gm = dropped(two_layers)
    assert len(live_linears(gm)) == 12
    taken = [(n.args[0].name, n.args[2:]) for n in calls(gm, unpad_rows)]
    assert taken == [("input_ids", (0, 1)), ("embedding_1", (-1, 0))]
    assert [n.args[0].name for n in calls(gm, pad_rows)] == ["layer_norm_3"]
    assert len(calls(gm, live_rows)) == len(calls(gm, plan_attention)) == 1
    assert len(calls(gm, attend_rows)) == 2
    assert not calls(gm, aten.scaled_dot_product_attention)


def test_padded_attention(two_layers: fx.GraphModule) -> None:
    """Three values are scattered and one gathered for each; views stay on their side of the crossing."""
    gm = dropped(two_layers, attend=False)
    assert len(live_linears(gm)) == 12
    assert len(calls(gm, aten.scaled_dot_product_attention)) == 2
    assert [n.args[2:] for n in calls(gm, pad_rows)] == [(0, 2)] * 6 + [(0, 1)]
    assert len(calls(gm, unpad_rows)) == 4
    assert not calls(gm, attend_rows) + calls(gm, plan_attention)


@pytest.mark.parametrize("attend", [True, False])
@pytest.mark.parametrize("ready", [script, lambda gm: gm], ids=["scripted", "eager"])
def test_output_is_that_of_live_rows(two_layers: fx.GraphModule, attend: bool, ready: Any) -> None:
    run = ready(dropped(two_layers, attend=attend))
    full = padded([6, 6, 6], 6)
    for example in (padded([6, 3, 5], 6), padded([2, 7], 7, left=True), padded([1], 1), padded([0, 4], 5), full):
        alive = example["attention_mask"].bool()
        got, wanted = run(**example), two_layers(**example)
        kept = alive | ~alive.any(1, keepdim=True)
        torch.testing.assert_close(got[kept], wanted[kept], **OTHER_GEMM)
        assert not got[~kept].any()


def test_an_inverted_mask(two_layers: fx.GraphModule) -> None:
    """Rows are live where it is zero: here that is padding, whose values are then the only ones kept."""
    example = padded([6, 3, 5], 6)
    got = dropped(two_layers, inverted=True, attend=False)(**example)
    dead = example["attention_mask"] == 0
    assert got[1:][dead[1:]].any(-1).all()
    assert not got[1:][~dead[1:]].any()


def crossing(m: OfRows, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Two Linears that read one padded value, and two running sums of one live value."""
    before = (x * mask[..., None]).cumsum(1)
    y = F.gelu(m.a(before)) + m.b(before)
    return y.cumsum(1) - y.cumsum(1).cumsum(1), m.c(y.cumsum(1).relu())


def sizes(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    """Sizes as arguments that count rows, and as values that do not."""
    y = m.fc(x * mask[..., None]).view(x.size(0), x.size(1), 2, -1).flatten(2) / x.size(1)
    z = torch.full((x.size(0), x.size(1), 1), 2.0) + m.fc.bias.expand(x.size(0), x.size(1), -1)
    return (y[:, : x.size(1)] + z[..., None].repeat(1, 1, 1, 2).mean(-1)).relu() * x.size(0)


def shared_keys(m: OfRows, x: Tensor, mask: Tensor) -> Tensor:
    """Every head of queries reads one head of keys."""
    q, k = m.q(x).unflatten(-1, (2, 4)).transpose(1, 2), m.k(x)[:, None]
    return F.scaled_dot_product_attention(q, k, k, (mask != 0)[:, None, None]).transpose(1, 2).flatten(2)


def of_live_rows(model: OfRows) -> fx.GraphModule:
    """Rewritten, with the outputs of the original on live rows, or the test fails."""
    given = ragged()
    gm = symbolic(model, given)
    new, alive = dropped(gm, "mask"), given["mask"].bool()
    wanted, got = gm(**given), new(**given)
    for a, b in zip(wanted, got, strict=True) if isinstance(wanted, tuple) else [(wanted, got)]:
        torch.testing.assert_close(b[alive], a[alive], **OTHER_GEMM)
    return new


def test_each_value_crosses_once_and_no_region_mixes_rows() -> None:
    gm = of_live_rows(OfRows(crossing, "a", "b", "c"))
    assert [n.args[0].name for n in calls(gm, unpad_rows)] == ["cumsum", "cumsum_4"]
    assert [n.args[0].name for n in calls(gm, pad_rows)] == ["add", "c"]
    assert live_linears(gm) == ["a", "b", "c"]
    assert not [n for n in calls(gm, aten.cumsum) if LIVE in n.meta]


def test_sizes_that_count_rows_and_sizes_that_are_values() -> None:
    new = of_live_rows(OfRows(sizes, "fc"))
    (count,), (divided,) = calls(new, count_live), calls(new, aten.div)
    reshaped = next(n for n in calls(new, aten.reshape) if LIVE in n.meta)
    assert reshaped.args[1] == [1, count, 2, -1]
    assert isinstance(divided.args[1], fx.Node)
    assert divided.args[1] is not count


def test_attention_with_fewer_heads_of_keys_stays_padded() -> None:
    assert not calls(of_live_rows(OfRows(shared_keys, "q", k=nn.Linear(8, 4))), attend_rows)


class Weighted(nn.Module):
    """An input beside the mask has axes of its own."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, weights: Tensor) -> Tensor:
        return (input_ids * attention_mask)[..., None] * weights


@pytest.mark.parametrize(
    ("marked", "mask", "message"),
    [
        (True, "mask", "there is no input 'mask': the model's are input_ids, attention_mask, weights"),
        (True, "weights", "'weights' must be shaped [batch, tokens]; its layout is 'bt?'"),
        (False, "attention_mask", "the graph has no row verdicts: run MarkRows first"),
    ],
)
def test_requires_verdicts_and_a_mask_of_rows(marked: bool, mask: str, message: str) -> None:
    gm = symbolic(Weighted(), {**padded([4, 2], 4), "weights": torch.ones(2, 4, 3)})
    before = graph_text(MarkRows()(gm).graph_module if marked else gm)
    with pytest.raises(PassError) as caught:
        DropDeadRows(mask)(gm)
    assert str(caught.value) == message
    assert graph_text(gm) == before


def test_claim_no_live_node_reads_a_padded_value(two_layers: fx.GraphModule) -> None:
    gm = dropped(two_layers, attend=False)
    calls(gm, aten.scaled_dot_product_attention)[0].meta[LIVE] = True
    with pytest.raises(PassError, match=r"^%scaled_dot_product_attention runs on live rows and reads a padded value$"):
        DropDeadRows("attention_mask").ensures(gm)
