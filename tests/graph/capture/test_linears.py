"""Capture by export: what the graph looks like, and what is handled or refused by name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import CaptureError
from dendrofx.graph.capture import Captured, attempts, capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE
from tests.graph.capture.check import agrees, exported, sites
from tests.graph.capture.models import WIDTH, ByWeight, OddLinears, SharedLayer, Tied
from tests.models import Mlp

X = torch.randn(4, 6, WIDTH)
aten = torch.ops.aten


def test_tied_weights_are_sites_under_their_own_names() -> None:
    model, ids = Tied().eval(), torch.arange(12).reshape(3, 4)
    gm = exported(model, ids)
    assert sites(gm) == (["decoder", "other"], {})
    (lookup,) = (n for n in gm.graph.nodes if n.target is aten.embedding)
    weight = gm.get_parameter(str(lookup.args[0].target))
    assert gm.get_submodule("decoder").weight is weight
    assert gm.get_submodule("other").weight is weight
    assert agrees(model, gm, Inputs.of(ids[:1]))


def test_a_layer_that_is_called_twice_is_two_sites_of_one_module() -> None:
    first, second = find_sites(exported(SharedLayer(), X))
    assert first.linears == second.linears == ("fc1", "fc2")
    assert first.nodes != second.nodes


def test_linears_that_are_not_called_are_refused_with_the_reason() -> None:
    reason = "its parameters are used functionally (%fc2_weight), not by calling the module"
    assert sites(exported(ByWeight(), X))[1] == {"fc2": reason}
    assert sites(exported(OddLinears(), X))[1] == {
        "doubled": "Subclass is a subclass of nn.Linear, its forward may differ"
    }


class Attends(nn.Module):
    """Attention whose output projection torch uses through its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.MultiheadAttention(WIDTH, 2, batch_first=True), Mlp(WIDTH, 32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x + self.attention(x, x, x)[0])  # type: ignore[no-any-return]


class AttendsInTurn(Attends):
    """The same, in a forward that FX cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[1] > 0 else x


@pytest.mark.parametrize(("build", "way"), [(Attends, "symbolic"), (AttendsInTurn, "export")])
def test_the_projection_of_attention_is_never_swapped(build: Callable[[], nn.Module], way: str) -> None:
    model = build().eval()
    gm = capture(model, Inputs.of(X))
    captured: Captured = gm.meta[CAPTURE]
    assert captured.way == way
    assert captured.difference is not None
    assert captured.difference < 1e-6
    kind = "NonDynamicallyQuantizableLinear"
    reason = f"never swapped: nn.MultiheadAttention reads the weight of this {kind} without calling it"
    assert sites(gm) == (["mlp.fc1..fc2"], {"attention.out_proj": reason})


def test_layers_of_torch_that_hide_linears_go_to_export() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True))
    gm = exported(model, X)
    captured: Captured = gm.meta[CAPTURE]
    assert captured.failed == ("symbolic: torch's own layers hide their Linears",)
    assert captured.difference is not None
    assert captured.difference < 1e-6
    assert captured.reason.startswith("torch's fused encoder layers sum in another order")
    assert sites(gm)[0] == ["0.linear1..linear2"]


def test_a_layer_that_no_other_way_can_open_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise CaptureError("not today")

    monkeypatch.setattr(attempts, "export", fails)
    monkeypatch.setattr(attempts, "trace", fails)
    gm = capture(nn.Sequential(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)).eval(), Inputs.of(X))
    assert gm.meta[CAPTURE].way == "symbolic"
    assert gm.meta[CAPTURE].failed == ("export: not today", "trace: not today")
    found, refused = sites(gm)
    assert found == []
    assert refused["0.linear1"] == "used inside the leaf module '0' (TransformerEncoderLayer)"


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors is in prototype:UserWarning"
)  # torch's encoder uses them
def test_zeroed_padding_of_the_fused_encoder_is_refused_with_the_way_out() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True), 1).eval()
    padding = torch.arange(6) >= torch.tensor([6, 5, 3, 2])[:, None]
    example = Inputs((), (("src", X), ("src_key_padding_mask", padding)))
    with pytest.raises(CaptureError, match="set use_nested_tensor = False on it"):
        capture(model, example)
    model.use_nested_tensor = False
    assert capture(model, example).meta[CAPTURE].way == "export"
