"""Capture by export: what the graph looks like, and what is handled or refused by name."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import CaptureError
from dendrofx.graph.capture import Captured, attempts
from dendrofx.graph.find_sites import find_sites
from dendrofx.runtime.size_ops import nearest_even
from dendrofx.values.meta import CAPTURE, SHAPES
from tests.graph.capture.cases import CASES, TOKENS, taken
from tests.graph.capture.check import captured, same, sites
from tests.graph.capture.deciding import Unrolls
from tests.graph.capture.models import WIDTH, Regions
from tests.models import Mlp

aten = torch.ops.aten


def test_regions_are_inlined() -> None:
    gm = taken("regions").gm
    calls = [n.target for n in gm.graph.nodes if n.op in ("call_module", "call_function")]
    assert calls == ["fc1", aten.relu, "fc2"]
    assert sorted(dict(gm.named_parameters())) == ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]


def test_every_value_keeps_its_symbolic_shape() -> None:
    nodes = list(taken("regions").gm.graph.nodes)
    batch, tokens, width = nodes[0].meta[SHAPES][0]
    assert (type(batch), type(tokens), width) == (str, str, WIDTH)
    linears = [n.meta[SHAPES] for n in nodes if n.op == "call_module"]
    assert linears == [[(batch, tokens, 32)], [(batch, tokens, WIDTH)]]


@torch.no_grad()
def test_a_single_sample_and_a_single_token_are_enough() -> None:
    model = Regions().eval()
    gm = captured(model, TOKENS[:1, :1])
    for module in (gm, dendrofx.script(gm)):
        assert same(module(TOKENS), model(TOKENS))


def test_writes_stay_in_the_graph() -> None:
    targets = [n.target for n in taken("writes").gm.graph.nodes]
    assert aten.fill_ in targets or aten.copy_ in targets  # without a user: the slice that is written
    assert aten.add_ in targets


def test_tied_weights_stay_one() -> None:
    gm = taken("tied").gm
    (lookup,) = (n for n in gm.graph.nodes if n.target is aten.embedding)
    weight = gm.get_parameter(str(lookup.args[0].target))
    assert gm.get_submodule("decoder").weight is gm.get_submodule("other").weight is weight


def test_a_layer_that_is_called_twice_is_two_sites_of_one_module() -> None:
    first, second = find_sites(taken("shared").gm)
    assert first.linears == second.linears == ("fc1", "fc2")
    assert first.nodes != second.nodes


def test_symbolic_shapes_are_given_where_they_are_asked_for() -> None:
    assert captured(Mlp(), TOKENS, shapes=True).meta[CAPTURE] == Captured("export")
    with pytest.raises(CaptureError, match=r"^cannot capture Unrolls\.\n  export: [^\n]*$"):
        captured(Unrolls(), TOKENS, shapes=True)


def test_autocast_that_is_on_is_refused_by_name() -> None:
    symbolic, export = taken("autocast").captured.failed
    assert symbolic.startswith(
        "symbolic: the captured graph of Autocast differs from the model on (x=float32[4, 6, 16])"
    )
    assert export == (
        "export: %linear is an autocast region that is switched on (torch.bfloat16): routing works in float32. Remove"
        " torch.autocast from forward"
    )


class Checkpointed(Mlp):
    """A region that is neither no_grad nor autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, super().forward, lambda x: -Mlp.forward(self, x), (x,))  # type: ignore[no-any-return]


def test_other_regions_are_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"export: %cond is a region of its own kind, cond, which cannot be inlined"):
        captured(Checkpointed(WIDTH, 32, WIDTH), TOKENS)


def test_layers_of_torch_that_hide_linears_go_to_export() -> None:
    found = taken("fused layer").captured
    assert found.failed == ("symbolic: torch's own layers hide their Linears",)
    assert found.reason.startswith("torch's fused encoder layers sum in another order")


def test_a_layer_that_no_other_way_can_open_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise CaptureError("not today")

    monkeypatch.setattr(attempts, "export", fails)
    monkeypatch.setattr(attempts, "trace", fails)
    gm = captured(CASES["fused layer"].build(), TOKENS)
    assert gm.meta[CAPTURE].way == "symbolic"
    assert gm.meta[CAPTURE].failed == ("export: not today", "trace: not today")
    found, refused = sites(gm)
    assert found == ()
    assert refused["0.linear1"] == "used inside the leaf module '0' (TransformerEncoderLayer)"


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors is in prototype:UserWarning"
)  # of torch's encoder
def test_zeroed_padding_of_the_fused_encoder_is_refused_with_the_way_out() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True), 1)
    padding = torch.arange(6) >= torch.tensor([6, 5, 3, 2])[:, None]
    example = {"src": TOKENS, "src_key_padding_mask": padding}
    with pytest.raises(CaptureError, match="set use_nested_tensor = False on it"):
        captured(model, example)
    model.use_nested_tensor = False
    assert captured(model, example).meta[CAPTURE].way == "export"


COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {
    "min": lambda x: x[:, : min(x.size(1), x.size(0) + 2)].sum(1),
    "max": lambda x: x.new_zeros(max(x.size(0), x.size(1) - 1)).sum() + x.sum(1),
    "sym_sum": lambda x: x.sum(1) * torch.sym_sum([x.size(0), x.size(1), 3]),
    "sym_float": lambda x: x.sum(1) * torch.sym_float(x.size(1)),
    "a power": lambda x: x.sum(1) * (x.size(1) ** 0.5),
    "a ceiling": lambda x: x[:, : math.ceil(x.size(1) / 2)].sum(1),
    "trunc": lambda x: x[:, : math.trunc(x.size(1) / 3)].sum(1),
    "round": lambda x: x[:, : round(x.size(1) / 2)].sum(1),
    "abs": lambda x: x.sum(1) * abs(x.size(1) - 100),
    "sym_not": lambda x: x.sum(1) * torch.sym_not(x.size(1) > x.size(0)),
    "sym_ite": lambda x: x.sum(1) * torch.sym_ite(x.size(1) > x.size(0), x.size(0), x.size(1)),
}


@pytest.mark.parametrize("form", COMPUTED)
def test_arithmetic_of_sizes_scripts(form: str) -> None:
    class Model(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return COMPUTED[form](super().forward(input))

    model = Model(WIDTH, WIDTH).eval().requires_grad_(False)
    scripted = dendrofx.script(captured(model, torch.randn(6, 9, WIDTH), shapes=True))
    for size in ((6, 9, WIDTH), (3, 9, WIDTH), (6, 14, WIDTH), (5, 3, WIDTH), (2, 5, WIDTH), (4, 7, WIDTH)):
        x = torch.randn(size)
        torch.testing.assert_close(scripted(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("x", [-2.5, -1.5, -0.4, 0.5, 0.6, 1.5, 2.5, 3.0, 3.4])
def test_halves_are_rounded_to_the_even_number(x: float) -> None:
    assert nearest_even(x) == round(x)
