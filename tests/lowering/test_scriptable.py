"""What a model may hold to be lowered: torch's own operators alone, and numbers that are not finite."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.light import LowRank
from dendrofx.lowering.operators import PLAIN
from dendrofx.lowering.script import lowered
from tests.made import SAME_KERNELS, loaded
from tests.models import compressible


@torch.library.custom_op("dendrofx_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An operator that is there only where this file is imported."""
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    """Calls it between two Linears, as a packet or as one overload."""

    def __init__(self, overload: bool) -> None:
        super().__init__()
        self.first, self.last, self.overload = nn.Linear(16, 16), nn.Linear(16, 16), overload

    def forward(self, x: Tensor) -> Tensor:
        operator = torch.ops.dendrofx_tests.twice
        return self.last((operator.default if self.overload else operator)(self.first(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("overload", [False, True])
def test_operators_that_plain_torch_does_not_have_are_refused(overload: bool, freeze: bool, tmp_path: Path) -> None:
    model = Foreign(overload).eval()
    made = dendrofx.transform(model, torch.randn(4, 16), light=LowRank(2), options=dendrofx.Options(decide=False))
    message = r"operators that plain torch does not have, dendrofx_tests::twice at %twice: "
    with pytest.raises(dendrofx.InputError, match=message):
        dendrofx.script(made, freeze=freeze)
    with pytest.raises(dendrofx.InputError, match=message):
        dendrofx.save(made, tmp_path / "m.pt", freeze=freeze)
    assert list(tmp_path.iterdir()) == []
    if not overload:  # a baseline, whose graph only TorchScript sees
        with pytest.raises(dendrofx.InputError, match="dendrofx_tests::twice at %"):
            dendrofx.script(nn.Sequential(made, nn.ReLU()), freeze=freeze)


def test_nothing_is_compiled_that_no_call_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchScript compiles the classes of attributes: that of graphs, of no use to it, takes longer than a small model."""
    compiled: list[Any] = []
    monkeypatch.setattr("torch.jit._script._recursive_compile_class", lambda kind, where: compiled.append(kind))
    lowered(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU())))
    assert compiled == []


def test_plain_namespaces_are_those_of_torch_alone() -> None:
    code = "import torch; print(*{s.name.partition('::')[0] for s in torch._C._jit_get_all_schemas()})"
    run = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert {"aten", "prim", "quantized", "mkldnn"} <= set(run.stdout.split())
    assert set(run.stdout.split()) <= PLAIN


NAN, INF = math.nan, math.inf
NOT_FINITE: dict[str, Any] = {
    "filled": lambda x, m: x.masked_fill(m, NAN).nan_to_num(0.0),
    "by keyword": lambda x, m: torch.masked_fill(x, m, value=-INF).clamp(min=-3.0),
    "full_like": lambda x, m: torch.where(m, torch.full_like(x, NAN), x).nan_to_num(),
    "nan_to_num": lambda x, m: x.nan_to_num(nan=NAN, posinf=INF, neginf=-INF),
    "full": lambda x, m: torch.full((20,), -INF).exp() + x,
    "a bound": lambda x, m: x.clamp(-INF, 1.0),
    "a norm": lambda x, m: x / torch.linalg.vector_norm(x, INF, -1, True),
    "padding": lambda x, m: nn.functional.pad(x, (0, 1), value=-INF)[:, :20],
}


class Fills(nn.Module):
    """A constant that is not finite, then a chain."""

    def __init__(self, form: str, by_size: bool) -> None:
        super().__init__()
        self.mlp, self.form, self.by_size = compressible(20, 64, 10), NOT_FINITE[form], by_size

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.by_size and x.size(1) != 20:  # which FX's own tracer cannot follow
            return self.mlp(x[:, :20])  # type: ignore[no-any-return]
        return self.mlp(self.form(x, mask))  # type: ignore[no-any-return]


@pytest.mark.parametrize("by_size", [False, True], ids=["symbolic", "export"])
@pytest.mark.parametrize("form", NOT_FINITE)
def test_constants_that_are_not_finite(form: str, by_size: bool) -> None:
    model, x = Fills(form, by_size).eval().requires_grad_(False), torch.randn(6, 20)
    made = dendrofx.transform(model, (x, x > 1), budget=0, options=dendrofx.Options(decide=False, tune_seconds=0))
    assert str(made.plan.capture).startswith("captured by export" if by_size else "captured by symbolic")
    for scripted in (loaded(dendrofx.script(made)), dendrofx.script(made, freeze=True)):
        torch.testing.assert_close(scripted(x, x > 1), model(x, x > 1), **SAME_KERNELS)
    torch.testing.assert_close(made(x, x > 1), model(x, x > 1), **SAME_KERNELS)


def test_constants_in_a_model_inside_a_graph_are_spelled_out_too() -> None:
    inner = torch.fx.symbolic_trace(Fills("filled", False).eval())
    outer = torch.fx.Graph()
    outer.output(outer.call_module("inner", (outer.placeholder("x"), outer.placeholder("mask"))))
    x = torch.randn(3, 20)
    scripted = dendrofx.script(torch.fx.GraphModule({"inner": inner}, outer).eval())
    torch.testing.assert_close(scripted(x, x > 0), inner(x, x > 0), **SAME_KERNELS)
