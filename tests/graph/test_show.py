"""Printed graphs. The golden files are read like code; `DENDROFX_UPDATE_GOLDEN=1 pytest tests/test_show.py` rewrites them."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.gates import AlwaysLight, GateForm, ResidualGate
from dendrofx.graph.capture import capture
from dendrofx.graph.show import annotate_shapes, describe, graph_text
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
    routed = dendrofx.transform(kind().eval(), torch.randn(shape), light=light, gate=gate, decide=False)
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
        "  scale     = scale",
        "  mul       = mul(x, scale)",
        "  cat       = cat([mul, y], dim=1)",
        "  transpose = cat.transpose(0, 1)",
        "  getitem   = getitem(cat, (slice(None, None, None), 0))",
        "  return (transpose, getitem)",
    ]


def test_shapes_stand_in_one_column_and_on_the_inputs() -> None:
    gm = capture(Spellings().eval())
    annotate_shapes(gm, (torch.randn(3, 4), torch.randn(3, 2)), samples=3)
    first, *nodes, last = graph_text(gm).splitlines()
    assert first == "graph(x: f32[N, 4], y: f32[N, 2])"
    assert [line.split()[-2:] for line in nodes[:3]] == [["scale", "f32[4]"], ["f32[N,", "4]"], ["f32[N,", "6]"]]
    assert len({line.rindex("f32[") for line in nodes}) == 1
    assert last == "  return (transpose, getitem)"


@pytest.mark.parametrize(
    ("value", "samples", "text"),
    [
        (torch.zeros(7, 3), 7, "f32[N, 3]"),
        (torch.zeros(7, 7), 7, "f32[N, 7]"),  # only the leading size is the batch
        (torch.zeros(7, 3), 5, "f32[7, 3]"),
        (torch.zeros(1, 3), 1, "f32[1, 3]"),  # a batch of one is no batch
        (torch.zeros(()), 7, "f32[]"),
        (torch.zeros(7, dtype=torch.float64), 7, "f64[N]"),
        (torch.zeros(7, dtype=torch.bfloat16), 7, "bf16[N]"),
        (torch.zeros(7, dtype=torch.float16), 7, "f16[N]"),
        (torch.zeros(7, dtype=torch.int64), 7, "i64[N]"),
        (torch.zeros(7, dtype=torch.int32), 7, "i32[N]"),
        (torch.zeros(7, dtype=torch.bool), 7, "bool[N]"),
    ],
)
def test_describe(value: Tensor, samples: int, text: str) -> None:
    assert describe(value, samples) == text


def test_shapes_of_a_routed_graph_stand_in_one_column() -> None:
    routed = after(5, Residual(), gate=ResidualGate())
    annotate_shapes(routed, (torch.randn(8, 16),), samples=8)
    lines = [line for line in graph_text(routed).splitlines() if line.endswith("]") and line.startswith("  ")]
    assert len({line.rindex("f32[") for line in lines}) == 1
