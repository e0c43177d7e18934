"""The Lipschitz constants, and which graph nodes count as an activation, as nothing at all, or as a write in place."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dendrofx.graph.activations import LIPSCHITZ, activation_of, is_in_place, is_transparent

EVERY_FORM = [*(kind() for kind in LIPSCHITZ), nn.GELU(approximate="tanh")]


def last_call(forward: Callable[[Any], Any] | nn.Module) -> tuple[fx.Node, dict[str, nn.Module]]:
    """The last operation of a traced function or module, and the modules around it."""
    root = nn.Sequential(forward) if isinstance(forward, nn.Module) else forward
    gm = fx.symbolic_trace(root)
    return next(n for n in reversed(gm.graph.nodes) if n.op != "output"), dict(gm.named_modules())


@pytest.mark.parametrize("activation", EVERY_FORM, ids=repr)
def test_lipschitz_constant_is_the_largest_slope(activation: nn.Module) -> None:
    constant = LIPSCHITZ[type(activation)]
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(x).sum(), x)
    steepest = float(slope.abs().max())
    assert steepest <= constant
    assert constant <= 1.01 * steepest


@pytest.mark.parametrize("activation", EVERY_FORM, ids=repr)
def test_lipschitz_constant_bounds_differences(activation: nn.Module) -> None:
    x = 5 * torch.randn(10_000, dtype=torch.float64)
    y = x + torch.randn_like(x)
    assert ((activation(x) - activation(y)).abs() <= LIPSCHITZ[type(activation)] * (x - y).abs() + 1e-12).all()


MODULES = [*EVERY_FORM, nn.ReLU(inplace=True), nn.SiLU(inplace=True)]
FUNCTIONS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda x: F.relu(x), "ReLU()"),
    (lambda x: F.relu(x, inplace=True), "ReLU()"),
    (lambda x: F.relu_(x), "ReLU()"),
    (lambda x: torch.relu(x), "ReLU()"),
    (lambda x: torch.relu_(x), "ReLU()"),
    (lambda x: F.tanh(x), "Tanh()"),
    (lambda x: torch.tanh(x), "Tanh()"),
    (lambda x: F.gelu(x), "GELU(approximate='none')"),
    (lambda x: F.gelu(x, approximate="none"), "GELU(approximate='none')"),
    (lambda x: F.gelu(x, approximate="tanh"), "GELU(approximate='tanh')"),
    (lambda x: F.silu(x), "SiLU()"),
    (lambda x: F.hardswish(x), "Hardswish()"),
    (lambda x: x.relu(), "ReLU()"),
    (lambda x: x.relu_(), "ReLU()"),
    (lambda x: x.tanh(), "Tanh()"),
    (lambda x: x.tanh_(), "Tanh()"),
]


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_module_spellings(module: nn.Module) -> None:
    found = activation_of(*last_call(module))
    assert type(found) is type(module)
    assert found is not module
    assert getattr(found, "approximate", None) == getattr(module, "approximate", None)
    assert not getattr(found, "inplace", False)  # an activation of a block must not write into its input


@pytest.mark.parametrize(("function", "name"), FUNCTIONS)
def test_function_and_method_spellings(function: Callable[[Tensor], Tensor], name: str) -> None:
    node, modules = last_call(function)
    found = activation_of(node, modules)
    assert found is not None
    assert repr(found) == name
    x = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(found(x), function(x.clone()), rtol=0, atol=0)


@pytest.mark.parametrize(
    "unknown",
    [
        lambda x: torch.sigmoid(x),
        lambda x: F.leaky_relu(x),
        lambda x: x + 1,
        lambda x: x.abs(),
        nn.ELU(),
        nn.Softmax(-1),
    ],
)
def test_others_are_no_activation(unknown: Callable[[Any], Any]) -> None:
    assert activation_of(*last_call(unknown)) is None


def test_inputs_and_outputs_are_no_activation() -> None:
    gm = fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    ends = [n for n in gm.graph.nodes if n.op in ("placeholder", "output")]
    assert [activation_of(n, dict(gm.named_modules())) for n in ends] == [None, None]
    assert not any(is_transparent(n, dict(gm.named_modules())) for n in ends)


def test_subclass_of_an_activation_is_no_activation() -> None:
    class Leaky(nn.ReLU):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 0.1 * input

    Leaky.__module__ = "torch.nn.leaky"  # FX takes it for a leaf, as it takes torch's own layers
    node, modules = last_call(Leaky())
    assert node.op == "call_module"
    assert activation_of(node, modules) is None


@pytest.mark.parametrize("module", [nn.Identity(), nn.Dropout(0.5).eval()], ids=repr)
def test_transparent_modules(module: nn.Module) -> None:
    assert is_transparent(*last_call(nn.Sequential(module).eval()))


def test_dropout_in_training_mode_is_not_transparent() -> None:
    node, modules = last_call(nn.Dropout(0.5).train())
    modules[str(node.target)].train()
    assert not is_transparent(node, modules)


@pytest.mark.parametrize(
    ("function", "transparent"),
    [
        (lambda x: F.dropout(x, 0.5, training=False), True),
        (lambda x: F.dropout(x, 0.5, False), True),
        (lambda x: F.dropout(x, 0.5, True), False),
        (lambda x: F.dropout(x, 0.5), False),
        (lambda x: F.dropout(x, 0.5, training=True), False),
        (lambda x: F.relu(x), False),
        (lambda x: x.clone(), False),
    ],
)
def test_transparent_functions(function: Callable[[Tensor], Tensor], transparent: bool) -> None:
    assert is_transparent(*last_call(function)) is transparent


def test_spellings_that_no_trace_writes() -> None:
    """FX spells defaults out and traces through `F.tanh`; a graph that was built by hand does neither."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    assert isinstance(activation_of(graph.call_function(F.tanh, (x,)), {}), nn.Tanh)
    assert not is_transparent(graph.call_function(F.dropout, (x, 0.5)), {})
    assert not is_transparent(graph.call_function(F.dropout, (x, 0.5, True)), {})
    assert is_transparent(graph.call_function(F.dropout, (x, 0.5, False)), {})


aten = torch.ops.aten
EXPORTED: list[tuple[Any, dict[str, str], str]] = [
    (aten.relu, {}, "ReLU()"),
    (aten.relu_, {}, "ReLU()"),
    (aten.tanh, {}, "Tanh()"),
    (aten.tanh_, {}, "Tanh()"),
    (aten.gelu, {}, "GELU(approximate='none')"),
    (aten.gelu_, {}, "GELU(approximate='none')"),
    (aten.gelu, {"approximate": "tanh"}, "GELU(approximate='tanh')"),
    (aten.silu, {}, "SiLU()"),
    (aten.silu_, {}, "SiLU()"),
    (aten.hardswish, {}, "Hardswish()"),
    (aten.hardswish_, {}, "Hardswish()"),
]


def one_call(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A node that calls `target` on an input."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    return graph.create_node("call_method" if isinstance(target, str) else "call_function", target, (x, *args), kwargs)


@pytest.mark.parametrize(("packet", "options", "name"), EXPORTED)
def test_exported_spellings(packet: Any, options: dict[str, str], name: str) -> None:
    found = activation_of(one_call(packet, **options), {})
    assert found is not None
    assert repr(found) == name
    x = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(found(x), packet(x.clone(), **options), rtol=0, atol=0)


@pytest.mark.parametrize(
    "packet", [aten.sigmoid, aten.leaky_relu, aten.elu, aten.prelu, aten.softmax, aten.add, aten.abs]
)
def test_other_exported_operations_are_no_activation(packet: Any) -> None:
    assert activation_of(one_call(packet), {}) is None


def test_exported_dropout_is_transparent_in_eval_mode() -> None:
    assert is_transparent(one_call(aten.dropout, 0.1, False), {})
    assert is_transparent(one_call(aten.dropout, 0.1, train=False), {})
    assert not is_transparent(one_call(aten.dropout, 0.1, True), {})
    assert not is_transparent(one_call(aten.dropout, 0.1), {})
    assert not is_transparent(one_call(aten.clone), {})


@pytest.mark.parametrize(
    ("node", "writes"),
    [
        (one_call(aten.add_, 1), True),
        (one_call(aten.copy_, 1), True),
        (one_call(aten.index_put_, [None], 1), True),
        (one_call(aten.add, 1), False),
        (one_call(aten.__and__, 1), False),
        (one_call(aten.add, 1, out=0), True),
        (one_call(operator.setitem, 0, 1), True),
        (one_call(operator.iadd, 1), True),
        (one_call(operator.getitem, 0), False),
        (one_call(F.relu, inplace=True), True),
        (one_call(F.relu, inplace=False), False),
        (one_call(torch.relu_), True),
        (one_call("add_", 1), True),
        (one_call("__setitem__", 0, 1), False),  # FX records item assignment as a function, if at all
        (one_call("add", 1), False),
        (fx.Graph().placeholder("x_"), False),
    ],
    ids=lambda v: str(v),
)
def test_writes_in_place(node: fx.Node, writes: bool) -> None:
    assert is_in_place(node) is writes


def test_a_custom_operation_writes_where_its_schema_says_so() -> None:
    with torch.library._scoped_library("dendrofx_test", "DEF") as library:
        library.define("bump(Tensor(a!) x) -> ()")
        library.define("read(Tensor x) -> Tensor")
        assert is_in_place(one_call(torch.ops.dendrofx_test.bump))
        assert not is_in_place(one_call(torch.ops.dendrofx_test.read))
