"""Constructs, and the files that they are saved as."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dendrofx
from dendrofx import LearnedGate, RoutedModule
from tests import padded, repeated
from tests.asked import asked
from tests.made import batches, made
from tests.models import compressible
from tests.recorded import LOW, rows
from tests.search.cascade import test_exits as exits
from tests.search.cascade import test_routed_models as routed
from tests.search.cascade.models import classifier
from tests.search.cascade.models import rows as classified

FORMATS = ["pt2", pytest.param("onnx", marks=pytest.mark.peers)]
COMPILED = pytest.param("aoti", marks=pytest.mark.nightly)  # half a minute each
SUFFIX = {"pt2": "pt2", "aoti": "pt2", "onnx": "onnx"}
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # another order of float sums, and another library's exp and erf


def _of(kind: str) -> Callable[[], tuple[RoutedModule, Any]]:
    return lambda: (made(kind).module, made(kind).rows)


def _repeats(kind: str) -> Callable[[], tuple[RoutedModule, Any]]:
    return lambda: (repeated.once(repeated.MODELS[kind]()), repeated.runs([3, 1, 9, 2, 1]))


def _exit() -> tuple[RoutedModule, Any]:
    return exits.left(exits.deep()), exits.rows(40, 3)


def _routed_cascade() -> tuple[RoutedModule, Any]:
    return routed.cascade(classifier(), light=routed.LIGHT, full=routed.FULL), classified(64, 4)


class Twice(nn.Module):
    """Two attentions, with checks of the same words."""

    def __init__(self, fills: bool) -> None:
        super().__init__()
        self.first, self.second = padded.Attends(fills), padded.Attends(fills)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        return self.second(self.first(x, attention_mask), attention_mask)  # type: ignore[no-any-return]


def _attends(fills: bool) -> tuple[RoutedModule, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Twice(fills).eval().requires_grad_(False)
        mask = padded.ends(padded.HARD).long()
        given = {"x": torch.randn(*mask.shape, 32), "attention_mask": mask}
        return padded.live(model, given, "attention_mask"), given


def _first() -> tuple[RoutedModule, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model, given = padded.First().eval().requires_grad_(False), padded.inputs([9, 2, 1, 5])
        module = padded.live(model, given)
    assert "on the right only" in str(module.plan.dead_rows)
    return module, given


class Bounds(nn.Module):
    """A block, and Linears with activations that cut: compilers fuse the two."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.cut = compressible(), nn.ModuleList(nn.Linear(64, 8) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        six, both, chain, crossed = (linear(x) for linear in self.cut)
        cut = F.relu6(six), both.clamp(-1.0, 0.5), chain.clamp_min(0.0).clamp_max(1.0), crossed.clamp(1.0, 0.5)
        return self.block(x), *cut


def _bounds() -> tuple[RoutedModule, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Bounds().eval()
    given: dict[str, Any] = {"calibration": batches(), "budget": 0.05, "light": LOW, "gate": LearnedGate()}
    return dendrofx.transform(model, **asked(**given, sites="block*", tune_seconds=0)), rows(40, 99)


CONSTRUCTS: dict[str, Callable[[], tuple[RoutedModule, Any]]] = {
    **{
        kind: _of(kind)
        for kind in ("mlp", "residual", "gate-reads-light", "no-gate", "full-prepacked", "cascade", "padded")
    },
    **{f"repeats-{kind}": _repeats(kind) for kind in repeated.MODELS},
    "attends-added": lambda: _attends(fills=False),
    "attends-filled": lambda: _attends(fills=True),
    "first": _first,
    "bounds": _bounds,
    "exit": _exit,
    "routed-cascade": _routed_cascade,
}


@cache
def constructed(construct: str) -> tuple[RoutedModule, Any]:
    return CONSTRUCTS[construct]()


@cache
def saved(construct: str, format: str, counts: bool = False) -> bytes:
    """The file of a construct, written once a process."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{SUFFIX[format]}"
        dendrofx.save(constructed(construct)[0], path, format=format, counts=counts)  # type: ignore[arg-type]
        return path.read_bytes()


def loaded(folder: Path, data: bytes) -> dendrofx.LoadedModule:
    path = folder / "model"
    path.write_bytes(data)
    return dendrofx.load(path)
