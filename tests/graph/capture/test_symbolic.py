"""Capture by symbolic trace: what it leaves alone, what it refuses, and with which words.

The annotations of this file are postponed, as they are in many models: for FX they are strings.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import CaptureError, InputError
from dendrofx.graph.capture import Captured, Tracer, capture, is_routed
from dendrofx.runtime.routing import as_rows, restore_rows, split_rows
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CAPTURE
from tests.check import after, assert_same_output
from tests.graph.capture.check import captured, refused
from tests.models import Mlp, NoBlock, Residual, Shared

if TYPE_CHECKING:
    from somewhere import OnlyForCheckers  # type: ignore[import-not-found]


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line that the error quotes
            return x
        return -x


class Measures(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sum((x * i for i in range(x.shape[0])), start=x)


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        return x * scale


class Unresolved(nn.Module):
    def forward(self, x: OnlyForCheckers) -> OnlyForCheckers:
        return x * 2


class Bare(nn.Module):
    def forward(self, x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return x + y


NEEDS_INPUTS = "\n  export, trace: they need inputs: pass example_inputs= or calibration="


@pytest.mark.parametrize("kind", [Mlp, Residual, Shared, NoBlock])
def test_captured_graph_computes_the_same(kind: type[nn.Module]) -> None:
    model, x = kind().eval(), torch.randn(3, 5, 16)
    gm = capture(model, Inputs.of(x))
    assert gm.meta[CAPTURE] == Captured("symbolic")
    assert str(gm.meta[CAPTURE]) == "captured by symbolic, equal to the model bit for bit"
    assert_same_output(model, gm, x)
    assert type(gm).__name__ == type(model).__name__
    assert not any(p.requires_grad for p in gm.parameters())
    assert not any(m.training for m in gm.modules())


def test_containers_of_the_graph_are_in_eval_mode() -> None:
    gm = capture(nn.Sequential(nn.Sequential(Mlp())).eval())
    assert not any(m.training for m in gm.modules())


def test_data_dependent_branch_is_explained() -> None:
    line = Decides.forward.__code__.co_firstlineno + 1
    says = (
        f"cannot capture Decides.\n  symbolic: cannot trace Decides at {__file__}:{line}  `if x.sum() > 0:  # the line that the"
        " error quotes`: its forward decides something from values that are known only when it runs (symbolically traced"
        " variables cannot be used as inputs to control flow). Next step: transform the submodule that holds the Linears, e.g."
        f" model.mlp = dendrofx.transform(model.mlp), or move that line out of forward{NEEDS_INPUTS}"
    )
    with refused(says, CaptureError):
        captured(Decides())


def test_operation_that_takes_no_traced_value_is_explained() -> None:
    line = Measures.forward.__code__.co_firstlineno + 1
    says = (
        f"cannot capture Measures.\n  symbolic: cannot trace Measures at {__file__}:{line}  `return sum((x * i for i in"
        " range(x.shape[0])), start=x)`: an operation in its forward does not accept a traced value ('Proxy' object cannot be"
        " interpreted as an integer). Next step: "
    )
    with refused(says, CaptureError, whole=False):
        captured(Measures())


def with_part(name: str, part: nn.Module | Tensor) -> nn.Module:
    """In eval mode, but for one part."""
    model = Mlp().eval()
    if isinstance(part, Tensor):
        model.register_buffer(name, part)
    else:
        setattr(model, name, part)
    return model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (with_part("drop", nn.Dropout().train()), "'drop' (Mlp) is in training mode: call model.eval() first"),
        (Mlp(), "'the model' (Mlp) is in training mode: call model.eval() first"),
        (with_part("fc2", nn.Linear(32, 8, device="meta").eval()), "'fc2.weight' is on meta: it has no values"),
        (with_part("table", torch.zeros(3, device="meta")), "'table' is on meta: "),
        (lambda x: x, "transform takes an nn.Module, got function"),
    ],
    ids=["a part in training mode", "training mode", "a parameter elsewhere", "a buffer elsewhere", "a function"],
)
def test_what_is_no_model_in_eval_mode_on_the_cpu_is_refused(model: Any, says: str) -> None:
    with refused(says, InputError, whole=not says.endswith(("values", ": "))):
        capture(model)


@pytest.mark.parametrize(
    ("model", "types"),
    [
        (Masked(), {"x": Tensor}),
        (Unresolved(), {"x": Tensor}),  # what cannot be resolved is taken for a tensor
        (Bare(), {"x": Tensor, "y": Tensor}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_input_has_a_type_that_is_no_string(model: nn.Module, types: dict[str, object]) -> None:
    nodes = list(capture(model.eval()).graph.nodes)
    assert {n.target: n.type for n in nodes if n.op == "placeholder"} == types
    assert not any(isinstance(n.type, str) for n in nodes)


def test_the_model_is_not_modified() -> None:
    model = Mlp().eval()
    model.fc1.register_forward_hook(lambda *_: None)
    model.fc1.bias.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    before = _surface(model)
    gm = capture(model, Inputs.of(torch.randn(4, 16)))
    gm.get_submodule("fc2").weight.data.zero_()  # type: ignore[operator]
    assert _surface(model) == before
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def _surface(model: nn.Module) -> list[object]:
    grads = [(n, p.requires_grad, p.grad, p.data_ptr()) for n, p in model.named_parameters()]
    modules = [(n, m.training, list(m._forward_hooks), type(m)) for n, m in model.named_modules()]
    return [grads, modules, sorted(vars(model))]


class Strided(nn.Module):
    """A product of strided rows, which torch computes by another kernel where weights need no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 192)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.transpose(0, 1))  # type: ignore[no-any-return]


def test_rounding_is_allowed_where_its_reason_is_found() -> None:
    x, model = torch.randn(3, 12, 64), Strided().eval()
    found = captured(model, x).meta[CAPTURE]
    assert found.way == "symbolic"
    with torch.no_grad():
        if torch.equal(model(x), copy.deepcopy(model).requires_grad_(False)(x)):
            assert found.difference == 0  # on this CPU both kernels sum in the same order
            return
    assert 0 < found.difference < 1e-6
    assert found.reason == "torch sums products of strided rows in another order where weights need no gradient"
    assert str(found).startswith("captured by symbolic, equal to the model to ")
    assert capture(Strided().requires_grad_(False).eval(), Inputs.of(torch.randn(3, 12, 64))).meta[CAPTURE].reason == ""


def test_parts_of_a_routed_site_are_not_traced_into() -> None:
    targets = [n.target for n in Tracer().trace(after(5, Mlp())).nodes]
    for part in (as_rows, split_rows, restore_rows, "routed.fc1_fc2.light", "routed.fc1_fc2.full"):
        assert targets.count(part) == 1


def test_is_routed() -> None:
    assert is_routed(nn.Sequential(after(5, Mlp())))
    assert not is_routed(Mlp())
    assert not is_routed("routed")
