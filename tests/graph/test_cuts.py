"""Cuts of graphs: on random ones, a value is a cut just where leaving it out leaves no way from the inputs to the output."""

import pytest
import torch
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.graph.cuts import CUT, find_cuts, halves
from dendrofx.graph.shapes import tensors
from dendrofx.values.inputs import Inputs

WIDTH = 8


class Random(nn.Module):
    """A random graph of Linears, sums and activations; every value may be read again later."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(6))
        self.reads = [torch.randint(max(0, i - 2), i + 1, (2,), generator=draw).tolist() for i in range(6)]
        self.adds = (torch.rand(6, generator=draw) < 0.5).tolist()

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, WIDTH] -> f32[N, WIDTH]."""
        values = [x]
        for layer, (one, other), adds in zip(self.layers, self.reads, self.adds, strict=True):
            made = torch.relu(layer(values[one]))
            values.append(made + values[other] if adds else made)
        return values[-1]


def captured(model: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    return capture(model.eval(), Inputs(inputs), shapes=True)


def before(node: fx.Node, stop: fx.Node | None = None) -> set[fx.Node]:
    """All nodes that one depends on, without what stands before `stop`."""
    seen: set[fx.Node] = set()
    left = [node]
    while left:
        for other in left.pop().all_input_nodes:
            if other not in seen:
                seen.add(other)
                left += [] if other is stop else [other]
    return seen


def is_cut(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether every layer that the output needs beside a value depends on it."""
    *_, output = gm.graph.nodes
    layers = [n for n in before(output, node) if n.op == "call_module"]
    return node in before(output) and all(node in before(n) for n in layers if n is not node)


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_is_what_every_way_goes_through(seed: int) -> None:
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(seed))
    model = Random(seed)
    gm = captured(model, x)
    cuts = find_cuts(gm, lambda n: bool(tensors(n)))
    found = {c.node for c in cuts}
    every = [n for n in gm.graph.nodes if n.op != "output" and is_cut(gm, n)]
    assert found <= {n.name for n in every}
    # of several values behind as many layers the last is taken, and none behind all of them
    last = {sum(b.op == "call_module" for b in before(n) | {n}): n.name for n in every}
    needed = sum(n.op == "call_module" for n in before(list(gm.graph.nodes)[-1]))
    assert found == {name for layers, name in last.items() if layers < needed}
    for cut in cuts:
        first, rest = (fx.GraphModule(gm, g) for g in halves(gm, cut))
        assert torch.equal(rest(x, first(x)), model(x))
        run = [n.target for g in (first, rest) for n in g.graph.nodes if n.op == "call_module"]
        assert len(run) == len(set(run))  # nothing is computed twice


def test_masks_and_sizes_are_made_again_and_residual_streams_are_cut_between_blocks() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(16, 16)
            self.layers = nn.ModuleList([layer, layer])
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor, live: Tensor) -> Tensor:
            x = self.stem(x)
            for each in self.layers:
                x = each(x, src_key_padding_mask=live == 0)
            return self.head(x.mean(1))

    x, live = torch.randn(4, 6, 16), torch.ones(4, 6)
    live[:, 4:] = 0
    model = Masked().eval()
    gm = captured(model, x, live)
    cuts = find_cuts(gm, lambda n: len(tensors(n)) == 1)
    assert len(cuts) >= 3
    for cut in cuts:
        first, rest = (fx.GraphModule(gm, g) for g in halves(gm, cut))
        value = first(x, live)
        torch.testing.assert_close(rest(x, live, value), model(x, live))
        some = torch.tensor([2, 0])  # what goes on is fewer samples
        torch.testing.assert_close(rest(x[some], live[some], value[some]), model(x, live)[some])
    inputs = [str(n.target) for n in halves(gm, cuts[-1])[1].nodes if n.op == "placeholder"]
    assert inputs[-1] == CUT


def test_two_towers_have_no_cut_before_they_join() -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.top = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(2 * WIDTH, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.top(torch.cat([self.a(x), self.b(y)], 1))

    gm = captured(Towers(), torch.randn(4, WIDTH), torch.randn(4, WIDTH))
    assert [(c.after, c.node) for c in find_cuts(gm, lambda n: bool(tensors(n)))] == [("b", "cat")]
