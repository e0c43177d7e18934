"""Printed graphs. The golden files are read like code; `DENDROFX_UPDATE_GOLDEN=1 pytest tests/test_show.py` rewrites them."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.gates import AlwaysLight, GateForm, ResidualGate
from dendrofx.graph.capture import capture
from dendrofx.graph.show import annotate_shapes, graph_text
from dendrofx.graph.sizes import size_in
from tests.check import after
from tests.models import Mlp, NoBlock, Residual, Shared

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("name", "kind", "gate", "shape"),
    [
        ("mlp_of_sequences", Mlp, AlwaysLight(), (8, 5, 16)),
        ("residual", Residual, ResidualGate(), (8, 16)),
        ("shared", Shared, ResidualGate(), (8, 16)),
        ("no_block", NoBlock, None, (8, 16)),
    ],
)
def test_golden(name: str, kind: type[nn.Module], gate: GateForm | None, shape: tuple[int, ...]) -> None:
    light = dendrofx.LowRank(rank=2)
    routed = dendrofx.transform(
        kind().eval(), torch.randn(shape), light=light, gate=gate, options=dendrofx.Options(decide=False)
    )
    text = graph_text(routed) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("DENDROFX_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_graph_without_shapes_and_headers() -> None:
    assert graph_text(capture(Residual().eval())).splitlines() == [
        "graph(x)",
        "  stem   = stem(x)",
        "  relu   = relu(stem)",
        "  fc1    = fc1(relu)",
        "  relu_1 = relu(fc1)",
        "  fc2    = fc2(relu_1)",
        "  add    = add(relu, fc2)",
        "  head   = head(add)",
        "  return head",
    ]


def test_marked_site_is_fenced() -> None:
    assert graph_text(after(1, Residual(), select="fc1")).splitlines()[3:8] == [
        "# site fc1..fc2",
        "  fc1    = fc1(relu)",
        "  relu_1 = relu(fc1)",
        "  fc2    = fc2(relu_1)",
        "# end fc1..fc2",
    ]


def test_neighbouring_sites_have_their_own_fences() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    lines = [line for line in graph_text(after(1, model)).splitlines() if line.startswith("#")]
    assert lines == ["# site 0", "# end 0", "# site 1", "# end 1"]


def test_inputs_are_called_alike_where_they_enter_and_where_they_are_used() -> None:
    gm = capture(nn.Sequential(nn.Linear(4, 4)).eval())  # FX renames this input: `input` is a Python builtin
    head, call, _ = graph_text(gm).splitlines()
    entering, used = head.removeprefix("graph(").removesuffix(")"), call.removeprefix("  _0 = 0(").removesuffix(")")
    assert entering == used


class Spellings(nn.Module):
    """A parameter, a method, an index, a keyword, a list and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([x * self.scale, y], dim=1)
        return both.transpose(0, 1), both[:, 0]


def test_every_kind_of_node() -> None:
    assert graph_text(capture(Spellings().eval())).splitlines() == [
        "graph(x, y)",
        "  mul       = mul(x, scale)",
        "  cat       = cat([mul, y], dim=1)",
        "  transpose = cat.transpose(0, 1)",
        "  getitem   = cat[:, 0]",
        "  return (transpose, getitem)",
    ]


def test_shapes_stand_in_one_column_and_on_the_inputs() -> None:
    gm = capture(Spellings().eval())
    annotate_shapes(gm, (torch.randn(3, 4), torch.randn(3, 2)), samples=3)
    first, *nodes, last = graph_text(gm).splitlines()
    assert first == "graph(x: f32[N, 4], y: f32[N, 2])"
    assert [line.split()[-2:] for line in nodes[:3]] == [["f32[N,", "4]"], ["f32[N,", "6]"], ["f32[6,", "N]"]]
    assert len({line.rindex("f32[") for line in nodes}) == 1
    assert last == "  return (transpose, getitem)"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((6, 2, 6), "N"),
        ((5, 5, 4), "T"),
        ((12, 4, 12), "N*2"),
        ((30, 10, 24), "N*T"),
        ((150, 50, 96), "N*T*T"),
        ((6, 6, 5), "T+1"),
        ((12, 12, 12), "12"),  # a size of the model, whatever it is a multiple of
        ((7, 3, 9), "?"),
    ],
)
def test_a_size_is_written_by_what_it_moves_with(values: tuple[int, ...], text: str) -> None:
    assert size_in({"N": (6, 2, 6), "T": (5, 5, 4)}, values) == text


class Sized(nn.Module):
    """Weights whose sizes are multiples of the samples, samples that are not alone in their axis, and every type."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scaled = x * self.scale
        kinds = [
            scaled.to(t) for t in (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool)
        ]
        return scaled.reshape(-1), (self.scale * 2).reshape(3, 4), scaled.sum(), *kinds


@pytest.mark.parametrize("samples", [1, 2, 3, 12])
def test_only_sizes_that_vary_are_samples_and_types_are_short(samples: int) -> None:
    gm = capture(Sized().eval())
    annotate_shapes(gm, (torch.randn(samples, 12),), samples)
    shapes = [line.split("   ")[-1].strip() for line in graph_text(gm).splitlines()[1:-1]]
    kinds = ["f64", "bf16", "f16", "i64", "i32", "bool"]
    assert shapes == ["f32[N, 12]", *(f"{k}[N, 12]" for k in kinds), "f32[N*12]", "f32[12]", "f32[3, 4]", "f32[]"]


class Fixed(nn.Module):
    """Runs on eight samples alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(8, 2, -1)


def test_where_no_other_size_can_be_run_sizes_are_numbers() -> None:
    gm = capture(Fixed().eval())
    annotate_shapes(gm, (torch.randn(8, 6),), samples=8)
    assert graph_text(gm).splitlines()[0] == "graph(x: f32[8, 6])"


class Layer(nn.Module):
    """One layer of several that are alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x)))) * scale  # type: ignore[no-any-return]


class Stack(nn.Module):
    """Layers, whose last ones may be wider, each read by the next; the second is read at the end as well."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(w) for w in widths)

    def forward(self, x: Tensor) -> Tensor:
        scale, kept = x.mean(), []
        for layer in self.layers:
            x = layer(x, scale)
            kept.append(x)
        return x - kept[1]


def stacked(*widths: int) -> str:
    gm = capture(Stack(*widths).eval())
    annotate_shapes(gm, (torch.randn(5, 8),), samples=5)
    return graph_text(gm)


def test_layers_that_are_alike_are_printed_once() -> None:
    assert stacked(*[16] * 6).splitlines() == [
        "graph(x: f32[N, 8])",
        "  mean = x.mean()            f32[]",
        "# 6 x: layers.0 to layers.5; after the first, x is add of the one before",
        "  norm = norm(x)             f32[N, 8]",
        "  up   = up(norm)            f32[N, 16]",
        "  relu = relu(up)            f32[N, 16]",
        "  down = down(relu)          f32[N, 8]",
        "  mul  = mul(down, mean)     f32[N, 8]",
        "  add  = add(x, mul)         f32[N, 8]",
        "# end 6 x",
        "  sub  = sub(add@6, add@2)   f32[N, 8]",
        "  return sub",
    ]


def test_layers_that_differ_are_not_taken_for_one_another() -> None:
    folds = [line for line in stacked(16, 16, 16, 24, 24).splitlines() if " x: " in line]
    assert [f.split(";")[0] for f in folds] == ["# 3 x: layers.0 to layers.2", "# 2 x: layers.3 to layers.4"]
    assert " x: " not in stacked(16, 24)


def test_layers_that_are_wired_otherwise_are_not_taken_for_one_another() -> None:
    gm = capture(Stack(*[16] * 6).eval())
    third = next(n for n in gm.graph.nodes if n.name == "mul_2")
    third.args = (third.args[0], next(n for n in gm.graph.nodes if n.name == "add"))  # of the first layer, not the mean
    folds = [line for line in graph_text(gm).splitlines() if " x: " in line]
    assert [f.split(";")[0] for f in folds] == ["# 2 x: layers.0 to layers.1", "# 3 x: layers.3 to layers.5"]


def test_shapes_of_a_routed_graph_stand_in_one_column() -> None:
    routed = after(5, Residual(), gate=ResidualGate())
    annotate_shapes(routed, (torch.randn(8, 16),), samples=8)
    lines = [line for line in graph_text(routed).splitlines() if line.endswith("]") and line.startswith("  ")]
    assert len(lines) >= 7  # score and result of three sites, and what is between them
    assert len({line.rindex("f32[") for line in lines}) == 1


class Shifted(Stack):
    """A sum in front of layers that end in one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + x.mean())


def test_a_fold_begins_where_a_layer_does() -> None:
    """Also where what is before the first layer looks like the end of one."""
    gm = capture(Shifted(*[16] * 6).eval())
    lines = graph_text(gm).splitlines()
    start = lines.index("# 6 x: layers.0 to layers.5; after the first, add is add_1 of the one before")
    assert lines[1].split(" = ")[1] == "x.mean()"
    assert [line.split(" = ")[1] for line in lines[2:start]] == ["add(x, mean)", "add.mean()"]
    assert lines[start + 1].split(" = ")[1] == "norm(add)"


class Masked(nn.Module):
    """torch's own encoder, whose first layer spells out the mask that all of them read."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=padding)  # type: ignore[no-any-return]


def test_what_all_layers_read_of_a_mask_is_printed_before_the_first() -> None:
    torch.manual_seed(0)
    padding = torch.arange(7) >= torch.tensor([7, 3, 5])[:, None]
    routed = dendrofx.transform(
        Masked(3).eval(),
        {"x": torch.randn(3, 7, 8), "padding": padding},
        dead_rows="~padding",
        options=dendrofx.Options(tune_seconds=0),
    )
    lines = graph_text(routed).splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith("# 3 x: encoder.layers.0 to encoder.layers.2;"))
    before = [line.split("(")[0].split()[-1] for line in lines[1:start]]
    assert before[-2:] == ["plan_attention", "unpad_rows"]
    assert lines[lines.index("# end 3 x") + 1].split("(")[0].split()[-1] == "pad_rows"
    assert max(map(len, lines)) <= 100
