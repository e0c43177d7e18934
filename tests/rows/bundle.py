"""Many small functions of rows in one graph: one export instead of one a function."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx, nn

from dendrofx.graph.capture import capture
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.values.inputs import Inputs

Case = Callable[["Bundle", Tensor, Tensor], Tensor]
WIDTH = 8


class Bundle(nn.Module):
    """Applies each case to x, f32[batch, tokens, 8], and ids, i64[batch, tokens] in 0..4; cases find fixed values here."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        super().__init__()
        self.cases = list(cases.values())
        self.fc, self.norm, self.table = nn.Linear(WIDTH, 4), nn.LayerNorm(WIDTH), nn.Embedding(5, WIDTH)
        self.per_head = nn.Parameter(torch.randn(2, 4, 4))
        self.register_buffer("pick", torch.tensor([0, 2]))

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        return tuple(case(self, x, ids) for case in self.cases)


def inputs(batch: int = 3, tokens: int = 5) -> Inputs:
    """Seeded, so that the same graph comes out of every run."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, tokens, WIDTH, generator=generator)
    return Inputs.of({"x": x, "ids": torch.randint(5, (batch, tokens), generator=generator)})


class Judged:
    """A bundle's verdicts by case."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        gm = capture(Bundle(cases).eval().requires_grad_(False), inputs(), shapes=True)
        self.analysis = RowAnalysis(gm)
        result = next(n for n in gm.graph.nodes if n.op == "output").args[0]
        outputs = result if isinstance(result, tuple) else (result,)
        self.nodes = {name: _calls(node) for name, node in zip(cases, outputs, strict=True)}

    def verdicts(self, case: str) -> list[str]:
        """What is said of the case's calls that give tensors, in order; constants left out."""
        notes = [self.analysis.notes[n] for n in self.nodes[case]]
        return [str(note) for note in notes if str(note)]


def _calls(output: fx.Node) -> list[fx.Node]:
    """The calls that an output comes from, in the graph's order."""
    found, left = {output}, [output]
    while left:
        new = set(left.pop().all_input_nodes) - found
        found |= new
        left += new
    return [n for n in output.graph.nodes if n in found and n.op.startswith("call_")]
