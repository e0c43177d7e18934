"""Layouts: letters come from the symbols of an export, never from sizes that happen to be equal."""

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.graph.shapes import Shape, shape, tensors, value_shapes
from dendrofx.rows.layout import Letters, fixed, has_rows
from dendrofx.values.meta import SHAPES
from tests.rows.models import symbolic


def graph(**sizes: Shape) -> fx.GraphModule:
    """A graph of inputs with these shapes, and nothing else."""
    made = fx.Graph()
    for name, size in sizes.items():
        made.placeholder(name).meta[SHAPES] = [size]
    made.output(())
    return fx.GraphModule(nn.Module(), made)


def layouts(gm: fx.GraphModule, mask: str | None = None) -> dict[str, str]:
    letters = Letters(gm, mask)
    return {n.name: letters.of(n) for n in gm.graph.nodes if n.op != "output"}


SOURCE: dict[str, Shape] = {"source": ("b", "s", 8), "target": ("b", "t", 8), "target_mask": ("b", "t")}
UNCOMPARED: dict[str, Shape] = {"x": ("b", "t", 8), "mask": ("b2", "t2")}
IMAGE: dict[str, Shape] = {"image": ("b", 3, 32, 32), "labels": ("n",), "x": ("b", "t", 8)}
# What it shows, the inputs, the mask, and the layouts of the inputs in order.
GRAPHS: list[tuple[str, dict[str, Shape], str | None, str]] = [
    ("ids and their mask", {"ids": ("b", "t"), "mask": ("b", "t")}, None, "bt bt"),
    # a model need not compare the lengths of its inputs; calls do
    ("samples counted by several symbols", {"ids": ("b", "t"), "mask": ("b2", "t")}, None, "bt bt"),
    # no mask of the source says which rows of the target are dead
    ("tokens of one sequence only", SOURCE, None, "bt. b?. b?"),
    ("tokens of the mask's sequence", SOURCE, "target_mask", "b?. bt. bt"),
    # it can only mean the one sequence that there is; with two there is no telling
    ("a mask never compared with its rows", {**UNCOMPARED, "positions": ("b", "t")}, "mask", "bt. bt bt"),
    ("a mask never compared with either", {**UNCOMPARED, "y": ("b", "u")}, "mask", "b?. bt b?"),
    ("no mask: the first input with both", IMAGE, None, "b... ? bt."),
    ("a mask elsewhere: the same", IMAGE, "elsewhere", "b... ? bt."),
    ("one symbol for both", {"x": ("n", "n")}, None, "??"),
    ("tokens are samples elsewhere", {"x": ("b", "t"), "y": ("t", "u")}, None, "b? ??"),
    ("twice samples", {"x": ("b", "t"), "y": ("b", "b")}, None, "bt bb"),
    ("one batch", {"x": (4, "t")}, None, ".t"),
    ("one length", {"x": ("b", 7)}, None, "b."),
    ("a multiple", {"x": ("b", "2*t")}, None, "bt"),
]


@pytest.mark.parametrize(("sizes", "mask", "expected"), [g[1:] for g in GRAPHS], ids=[g[0] for g in GRAPHS])
def test_layouts_of_inputs(sizes: dict[str, Shape], mask: str | None, expected: str) -> None:
    assert list(layouts(graph(**sizes), mask).values()) == expected.split()


def test_several_tensors_need_one_layout() -> None:
    gm = graph(x=("b", "t"), halves=("b", "t"), uneven=("b", "t"), size=())
    nodes = {n.name: n for n in gm.graph.nodes}
    nodes["halves"].meta[SHAPES] = [("b", "t", 4), ("b", "t", 4)]
    nodes["uneven"].meta[SHAPES] = [("b", "t", 4), ("b", 4)]
    nodes["size"].meta[SHAPES] = "t"
    assert layouts(gm) == {"x": "bt", "halves": "bt.", "uneven": "?", "size": ""}
    assert tensors(nodes["size"]) == []
    assert shape(nodes["uneven"]) == ("b", "t", 4)


def test_rows_and_constants() -> None:
    assert [has_rows(x) for x in ("bt", "b.t.", "tb", "b.tt", "bbt", "b.", ".t", "", "bt?")] == [True] * 3 + [False] * 6
    assert [fixed([x]) for x in ("", ".", "...", "b.", ".t", "?")] == [True] * 3 + [False] * 3
    assert fixed(["..", "."])
    assert not fixed(["..", "bt"])


def test_shapes_as_plain_words() -> None:
    assert value_shapes(torch.zeros(2, 3)) == [(2, 3)]
    assert value_shapes((torch.zeros(2), torch.zeros(()), 5)) == [(2,), ()]
    assert value_shapes(4) == 4
    assert value_shapes(None) is None


class Doubled(nn.Module):
    """An input whose axis 1 can have one size only, as the channels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 1)

    def forward(self, image: Tensor, x: Tensor) -> Tensor:
        return self.conv(image).mean(2)[:, None] + x.unsqueeze(1).flatten(0, 1)


def test_letters_of_an_export() -> None:
    """Batch, tokens and width are all 4; the channels are no symbol though export keeps them as one."""
    gm = symbolic(Doubled(), {"image": torch.randn(4, 3, 4), "x": torch.randn(4, 4, 4)})
    found = layouts(gm)
    wanted = {"image": "b.?", "conv1d": "b.?", "mean": "b.", "x": "bt.", "add": "bt."}
    assert {name: found[name] for name in wanted} == wanted
    assert shape(next(n for n in gm.graph.nodes if n.name == "image"))[1] == 3
