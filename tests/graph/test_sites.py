"""Sites: what is found in a graph, how it is selected, and with which words the rest is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import dendrofx
from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites, without_linears
from dendrofx.graph.sites import Refusal, Site, Sites
from dendrofx.values.inputs import Inputs
from tests.models import Mlp, NoBlock, Residual, Shared


class Parts(nn.Module):
    """Three Linears and whatever else a case needs; the case is its forward."""

    def __init__(self, case: Callable[[Any, Tensor], Tensor], **extra: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)
        self.case = case
        for name, module in extra.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.case(self, x)


def sites_of(model: nn.Module) -> Sites:
    return find_sites(capture(model.eval()))


def found(case: Callable[[Any, Tensor], Tensor], **extra: nn.Module) -> list[str]:
    return [s.name for s in sites_of(Parts(case, **extra))]


def refused(model: nn.Module) -> list[tuple[str, str, str | None]]:
    return [(r.site, r.reason, r.node) for r in sites_of(model).refused]


def test_chain_over_activation_and_dropout() -> None:
    (site,) = sites_of(Mlp())
    assert site == Site("fc1..fc2", ("fc1", "act", "drop", "fc2"), ("fc1", "fc2"), (16, 32, 8))
    assert site.macs == 16 * 32 + 32 * 8
    assert site.shape == "16 -> 32 -> 8"
    assert sites_of(Mlp()).refused == ()


CHAINS: list[tuple[Callable[[Any, Tensor], Tensor], list[str]]] = [
    (lambda m, x: m.fc1(x), ["fc1"]),
    (lambda m, x: m.fc2(F.gelu(m.fc1(x))), ["fc1..fc2"]),
    (lambda m, x: m.fc3(m.fc2(m.fc1(x).relu()).tanh()), ["fc1..fc3"]),
    (lambda m, x: m.fc2(F.dropout(F.dropout(m.fc1(x), training=False).relu(), 0.1, False)), ["fc1..fc2"]),
    (lambda m, x: m.fc2(m.fc1(x)), ["fc1", "fc2"]),  # no activation in between: no chain
    (lambda m, x: m.fc2(torch.relu(torch.tanh(m.fc1(x)))), ["fc1", "fc2"]),  # two activations
    (lambda m, x: m.fc2(torch.sigmoid(m.fc1(x))), ["fc1", "fc2"]),  # an unknown one
    (lambda m, x: m.fc2(torch.relu(m.fc1(x)) + 1), ["fc1", "fc2"]),
    (lambda m, x: m.fc2(F.dropout(torch.relu(m.fc1(x)), training=True)), ["fc1", "fc2"]),
    (lambda m, x: m.fc2(torch.relu(m.fc1(input=x))), ["fc1..fc2"]),
    (lambda m, x: m.fc3(m.fc2(F.relu(m.fc1(x)))), ["fc1..fc2", "fc3"]),
    (lambda m, x: m.fc2(m.fc1(x).reshape(-1, 6).relu()), ["fc1", "fc2"]),
    (lambda m, x: m.fc2(m.fc1(m.fc2(torch.relu(m.fc1(x))))), ["fc1..fc2", "fc1", "fc2"]),
]


@pytest.mark.parametrize(("case", "names"), CHAINS)
def test_chains(case: Callable[[Any, Tensor], Tensor], names: list[str]) -> None:
    assert found(case) == names


def test_input_by_keyword_is_a_site_of_its_own_or_in_a_chain() -> None:
    assert sorted(found(lambda m, x: m.fc3(input=m.fc2(input=torch.relu(m.fc1(input=x)))))) in (
        ["fc1", "fc2", "fc3"],
        ["fc1..fc2", "fc3"],
    )


def test_identity_in_a_chain() -> None:
    assert found(lambda m, x: m.fc2(m.skip(F.relu(m.skip(m.fc1(x))))), skip=nn.Identity()) == ["fc1..fc2"]


def test_bias_makes_no_difference() -> None:
    bare = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False))
    full = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    assert sites_of(bare) == sites_of(full)
    assert [s.name for s in sites_of(bare)] == ["0..2"]


def test_names_are_short_inside_a_common_parent() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4))})
    case = Parts(lambda m, x: m.body["b"](torch.relu(m.body["a"](x))), body=model)
    assert [s.name for s in sites_of(case)] == ["body.a..b.2"]
    inner = Parts(lambda m, x: m.body["b"](x), body=model)
    assert [s.name for s in sites_of(inner)] == ["body.b.0..2"]


def test_names_of_siblings_leave_out_the_parents_that_they_share() -> None:
    block = nn.ModuleDict({name: nn.ModuleDict({"dense": nn.Linear(4, 4)}) for name in ("intermediate", "output")})

    def forward(m: Any, x: Tensor) -> Tensor:
        layer = m.body["layer"]
        return layer["output"]["dense"](torch.relu(layer["intermediate"]["dense"](x)))  # type: ignore[no-any-return]

    case = Parts(forward, body=nn.ModuleDict({"layer": block}))
    assert [s.name for s in sites_of(case)] == ["body.layer.intermediate.dense..output.dense"]


def test_a_module_called_twice_is_two_sites() -> None:
    first, second = sites_of(Shared())
    assert (first.name, first.nodes, first.linears) == ("fc", ("fc",), ("fc",))
    assert (second.name, second.nodes, second.linears) == ("fc#2", ("fc_1",), ("fc",))
    twice = found(lambda m, x: m.fc2(torch.relu(m.fc1(m.fc2(torch.relu(m.fc1(x))) * 2))))
    assert twice == ["fc1..fc2", "fc1..fc2#2"]


def test_one_module_may_be_called_twice_in_a_chain() -> None:
    case = Parts(lambda m, x: m.square(torch.tanh(m.square(x))), square=nn.Linear(4, 4))
    (site,) = sites_of(case)
    assert (site.linears, site.widths) == (("square", "square"), (4, 4, 4))


SECOND_USERS: list[tuple[Callable[[Any, Tensor], Any], str, str]] = [
    (lambda m, x: (h := torch.relu(m.fc1(x)), m.fc2(h) + h.sum())[1], "relu", "sum_1"),
    (lambda m, x: (h := torch.relu(m.fc1(x)), m.fc2(h))[::-1], "relu", "output"),
    (lambda m, x: (h := m.fc1(x), m.fc2(torch.relu(h)) + h.sum())[1], "fc1", "sum_1"),
]


@pytest.mark.parametrize(("case", "middle", "other"), SECOND_USERS)
def test_a_second_user_of_the_middle_ends_the_chain(
    case: Callable[[Any, Tensor], Any], middle: str, other: str
) -> None:
    model = Parts(case)
    assert [s.name for s in sites_of(model)] == ["fc1", "fc2"]
    reason = f"the middle value %{middle} has a second user %{other}: the chain ends there"
    assert refused(model)[0] == ("fc1..fc2", reason, middle)


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


SUBCLASS = "NonDynamicallyQuantizableLinear"
MIDDLE = "the middle value %relu has a second user %add: the chain ends there"
INSIDE = "used inside the leaf module 'layer' (TransformerEncoderLayer)"
FUNCTIONAL = "its parameters are used functionally (%fc1_weight), not by calling the module"
NEVER = f"never swapped: nn.MultiheadAttention reads the weight of this {SUBCLASS} without calling it"
UNCALLED = [(name, "not called in the graph", None) for name in ("fc2", "fc3")]
# The model, its sites and its refusals.
REFUSED: list[tuple[nn.Module, list[str], list[tuple[str, str, str | None]]]] = [
    (Residual(), ["stem", "fc1..fc2", "head"], [("stem..fc1", MIDDLE, "relu")]),
    (
        nn.Sequential(nn.modules.linear.NonDynamicallyQuantizableLinear(4, 4)),
        [],
        [("0", f"{SUBCLASS} is a subclass of nn.Linear, its forward may differ", "_0")],
    ),
    (
        nn.Sequential(Doubled(4, 4)),
        [],
        [("0", "Doubled is a subclass of nn.Linear, its forward may differ", "_0_weight")],
    ),
    *(
        (nn.Sequential(nn.Linear(4, 4).to(dtype)), [], [("0", f"its weight is {dtype}; routing takes float32", "_0")])
        for dtype in (torch.float64, torch.bfloat16, torch.float16)
    ),
    (
        Parts(lambda m, x: m.fc1(m.att(x, x, x)[0]), att=nn.MultiheadAttention(4, 2)),
        ["fc1"],
        [*UNCALLED, ("att.out_proj", NEVER, None)],
    ),
    (
        Parts(lambda m, x: m.fc1(m.layer(x)), layer=nn.TransformerEncoderLayer(4, 2, 8)),
        ["fc1"],
        [
            *UNCALLED,
            ("layer.self_attn.out_proj", NEVER, None),
            ("layer.linear1", INSIDE, None),
            ("layer.linear2", INSIDE, None),
        ],
    ),
    (Parts(lambda m, x: F.linear(x, m.fc1.weight)), [], [("fc1", FUNCTIONAL, "fc1_weight"), *UNCALLED]),
    (Parts(lambda m, x: m.fc2(torch.relu(m.fc1(x)))), ["fc1..fc2"], UNCALLED[1:]),
]


@pytest.mark.parametrize(("model", "names", "reasons"), REFUSED)
def test_what_is_no_site_is_refused_with_reason_and_node(
    model: nn.Module, names: list[str], reasons: list[tuple[str, str, str | None]]
) -> None:
    assert [s.name for s in sites_of(model)] == names
    assert sorted(refused(model), key=str) == sorted(reasons, key=str)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_forward_hooks_are_refused(register: str) -> None:
    """Those of a graph module that was not captured here, which keeps them."""
    gm = fx.symbolic_trace(Mlp().eval())
    getattr(gm.get_submodule("fc1"), register)(lambda *_: None)
    found = find_sites(gm)
    assert [s.name for s in found] == ["fc2"]
    assert [(r.site, r.reason) for r in found.refused] == [
        ("fc1", "it has forward hooks, which a light branch would skip")
    ]


@pytest.mark.parametrize("name", ["act", "drop"])
def test_hooks_between_the_linears_end_the_chain(name: str) -> None:
    model = Mlp().eval()
    model.get_submodule(name).register_forward_hook(lambda _module, _args, out: 2 * out)
    assert [s.name for s in find_sites(capture(model, Inputs.of(torch.randn(3, 16))))] == ["fc1", "fc2"]


def test_one_module_under_two_names_is_not_refused() -> None:
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": shared, "b": shared})
    case = Parts(lambda m, x: m.body["b"](x), body=model)
    assert [r.site for r in sites_of(case).refused if r.site.startswith("body")] == []


def test_no_linear_at_all() -> None:
    assert sites_of(NoBlock()) == Sites(())


@pytest.mark.parametrize(("widths", "refused"), [
    ((20, 64, 0), {"2": "64 -> 0"}), ((0, 64, 4), {"0": "0 -> 64"}), ((4, 0, 4), {"0": "4 -> 0", "2": "0 -> 4"}),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_linear_without_weights_is_refused(widths: tuple[int, int, int], refused: dict[str, str]) -> None:
    first, middle, last = widths
    model = nn.Sequential(nn.Linear(first, middle), nn.ReLU(), nn.Linear(middle, last)).eval()
    found = {r.site: r.reason for r in sites_of(model).refused}
    assert found == {name: f"it has no weights: {shape} features" for name, shape in refused.items()}
    for x in (torch.randn(3, first), torch.randn(0, first)):
        assert torch.equal(dendrofx.transform(model)(x), model(x))
    made = dendrofx.transform(nn.Sequential(*model, nn.LayerNorm(last), nn.Linear(last, 8)).eval() if last else model)
    assert made(torch.randn(0, first)).shape == (0, 8 if last else 0)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        (None, ["stem", "fc1..fc2", "head"]),
        ("head", ["head"]),
        ("fc2", ["fc1..fc2"]),  # a module's name selects the chain that holds it
        ("fc*", ["fc1..fc2"]),
        ("*", ["stem", "fc1..fc2", "head"]),
        (["head", "stem"], ["stem", "head"]),
        (("fc1..fc2",), ["fc1..fc2"]),
        ([], []),
        (lambda site: site.macs > 300, ["fc1..fc2"]),
    ],
)
def test_select(selector: Any, names: list[str]) -> None:
    everything = sites_of(Residual())
    kept = everything.select(selector)
    assert [s.name for s in kept] == names
    left = [Refusal(s.name, "not selected by sites=", s.nodes[-1]) for s in everything if s.name not in names]
    assert kept.refused == (*everything.refused, *left)


@pytest.mark.parametrize("pattern", ["fc3", "blocks.*", "FC1"])
def test_unknown_pattern_is_an_error(pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        sites_of(Residual()).select(["head", pattern])
    assert str(caught.value) == f"sites='{pattern}' matches no site; the model has: stem, fc1..fc2, head"


def test_pattern_for_a_model_without_sites_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^sites='head' matches no site; the model has: none$"):
        sites_of(NoBlock()).select("head")


def test_expect() -> None:
    sites = sites_of(Residual())
    assert sites.expect(3) is sites
    with pytest.raises(InputError) as caught:
        sites.expect(4)
    assert str(caught.value) == f"expected 4 sites, found 3:\n{sites}"


def test_printed_table() -> None:
    lines = [line.split(maxsplit=1) for line in str(sites_of(Residual())).splitlines()]
    assert [name for name, _ in lines] == ["site", "---------", "stem", "fc1..fc2", "head", "stem..fc1", "chain"]
    assert lines[3][1].split() == ["16", "->", "64", "->", "16", "2048", "candidate"]
    assert lines[5][1].strip() == "refused: the middle value %relu has a second user %add: the"
    assert lines[6][1] == "ends there"
    assert max(map(len, str(sites_of(Residual())).splitlines())) <= 100
    assert repr(sites_of(Residual())) == "<Sites: 3 found, 1 refused: stem, fc1..fc2, head>"


def test_sites_are_a_sequence() -> None:
    sites = sites_of(Residual())
    assert (len(sites), sites[0].name, sites[-1].name) == (3, "stem", "head")
    assert sites[1] in sites


class Spoken(nn.Module):
    """Convolutions, an LSTM and products of tensors, and nothing that could be routed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 6, 3)
        self.lstm, self.norm = nn.LSTM(6, 6, batch_first=True), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(F.relu(self.second(self.first(x))).transpose(1, 2))
        return self.norm(y @ y.transpose(1, 2).softmax(-1) @ y)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("model", "made"), [
    (Spoken(), "2 Conv1d, 1 LSTM, 2 matmul(), 1 LayerNorm"),
    (nn.Sequential(nn.ReLU(), nn.Flatten()), "nothing that has weights"),
])  # fmt: skip
def test_a_model_without_linears_says_what_it_is_made_of(model: nn.Module, made: str) -> None:
    wanted = f"no Linear in it: {made}; only modules of class nn.Linear are routed"
    assert without_linears(capture(model.eval())) == wanted
    plan = dendrofx.transform(
        model, calibration=[torch.randn(40, 4, 9) for _ in range(5)], options=dendrofx.Options(tune_seconds=0)
    ).plan
    assert (plan.sites, plan.no_sites) == ([], wanted)
    assert " ".join(str(plan).split()).endswith(
        f"{wanted} nothing is routed: the outputs are the original's (budget 0.01)"
    )
    assert max(map(len, str(plan).splitlines())) <= 100
    assert dendrofx.transform(Mlp().eval(), options=dendrofx.Options(decide=False)).plan.no_sites == ""
