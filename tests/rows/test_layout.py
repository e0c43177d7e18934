"""Layouts: letters come from the symbols of an export, never from sizes that happen to be equal."""

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.graph.shapes import Shape, shape, tensors, value_shapes
from dendrofx.rows.layout import Letters, fixed, has_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import SHAPES


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


def test_ids_and_their_mask() -> None:
    assert layouts(graph(ids=("b", "t"), mask=("b", "t"))) == {"ids": "bt", "mask": "bt"}


def test_samples_may_be_counted_by_several_symbols() -> None:
    """A model need not compare the lengths of its inputs; calls do."""
    assert layouts(graph(ids=("b", "t"), mask=("b2", "t"))) == {"ids": "bt", "mask": "bt"}


def test_tokens_of_one_sequence_only() -> None:
    """No mask of the source says which rows of the target are dead."""
    gm = graph(source=("b", "s", 8), target=("b", "t", 8), target_mask=("b", "t"))
    assert layouts(gm) == {"source": "bt.", "target": "b?.", "target_mask": "b?"}
    assert layouts(gm, "target_mask") == {"source": "b?.", "target": "bt.", "target_mask": "bt"}


def test_a_mask_that_the_model_never_compares_with_its_rows() -> None:
    """It can only mean the one sequence that there is; with two there is no telling."""
    gm = graph(x=("b", "t", 8), mask=("b2", "t2"), positions=("b", "t"))
    assert layouts(gm, "mask") == {"x": "bt.", "mask": "bt", "positions": "bt"}
    gm = graph(x=("b", "t", 8), mask=("b2", "t2"), y=("b", "u"))
    assert layouts(gm, "mask") == {"x": "b?.", "mask": "bt", "y": "b?"}


@pytest.mark.parametrize("mask", ["elsewhere", None])
def test_without_such_a_mask_the_first_input_with_both_counts(mask: str | None) -> None:
    gm = graph(image=("b", 3, 32, 32), labels=("n",), x=("b", "t", 8))
    assert layouts(gm, mask) == {"image": "b...", "labels": "?", "x": "bt."}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"x": ("n", "n")}, {"x": "??"}),
        ({"x": ("b", "t"), "y": ("t", "u")}, {"x": "b?", "y": "??"}),
        ({"x": ("b", "t"), "y": ("b", "b")}, {"x": "bt", "y": "bb"}),
        ({"x": (4, "t")}, {"x": ".t"}),
        ({"x": ("b", 7)}, {"x": "b."}),
        ({"x": ("b", "2*t")}, {"x": "bt"}),
    ],
    ids=[
        "one symbol for both",
        "tokens are samples elsewhere",
        "twice samples",
        "one batch",
        "one length",
        "a multiple",
    ],
)
def test_what_one_symbol_can_tell(sizes: dict[str, Shape], expected: dict[str, str]) -> None:
    assert layouts(graph(**sizes)) == expected


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
    model = Doubled().eval().requires_grad_(False)
    example = Inputs.of({"image": torch.randn(4, 3, 4), "x": torch.randn(4, 4, 4)})
    gm = capture(model, example, shapes=True)
    found = layouts(gm)
    wanted = {"image": "b.?", "conv1d": "b.?", "mean": "b.", "x": "bt.", "add": "bt."}
    assert {name: found[name] for name in wanted} == wanted
    assert shape(next(n for n in gm.graph.nodes if n.name == "image"))[1] == 3
