"""The Lipschitz constants, and which graph nodes count as an activation, as nothing at all, or as a write in place."""

import functools
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
GELU, TANH_GELU = "GELU(approximate='none')", "GELU(approximate='tanh')"
FUNCTIONS: list[tuple[Callable[[Tensor], Tensor], str]] = [
    *((f, "ReLU()") for f in (F.relu, F.relu_, torch.relu, torch.relu_, lambda x: F.relu(x, inplace=True))),
    *((f, "ReLU()") for f in (lambda x: x.relu(), lambda x: x.relu_())),
    *((f, "Tanh()") for f in (F.tanh, torch.tanh, lambda x: x.tanh(), lambda x: x.tanh_())),
    *((f, GELU) for f in (F.gelu, lambda x: F.gelu(x, approximate="none"))),
    (lambda x: F.gelu(x, approximate="tanh"), TANH_GELU),
    (F.silu, "SiLU()"),
    (F.hardswish, "Hardswish()"),
]
aten = torch.ops.aten
EXPORTED: list[tuple[Any, dict[str, str], str]] = [
    *((f, {}, "ReLU()") for f in (aten.relu, aten.relu_)),
    *((f, {}, "Tanh()") for f in (aten.tanh, aten.tanh_)),
    *((f, {}, GELU) for f in (aten.gelu, aten.gelu_)),
    (aten.gelu, {"approximate": "tanh"}, TANH_GELU),
    *((f, {}, "SiLU()") for f in (aten.silu, aten.silu_)),
    *((f, {}, "Hardswish()") for f in (aten.hardswish, aten.hardswish_)),
]


def called(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A call of a function with one input, whatever else it may take."""
    return lambda x: function(x)


def one_call(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A node that calls `target` on an input."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    return graph.create_node("call_method" if isinstance(target, str) else "call_function", target, (x, *args), kwargs)


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_module_spellings(module: nn.Module) -> None:
    found = activation_of(*last_call(module))
    assert type(found) is type(module)
    assert found is not module
    assert getattr(found, "approximate", None) == getattr(module, "approximate", None)
    assert not getattr(found, "inplace", False)  # an activation of a block must not write into its input


@pytest.mark.parametrize(
    ("node", "modules", "function", "name"),
    [
        *((*last_call(called(f)), f, name) for f, name in FUNCTIONS),
        *((one_call(p, **o), {}, functools.partial(p, **o), name) for p, o, name in EXPORTED),
    ],
    ids=lambda given: getattr(given, "name", ""),  # of the node; a function's address differs between workers
)
def test_function_and_method_spellings(
    node: fx.Node, modules: dict[str, nn.Module], function: Callable[[Tensor], Tensor], name: str
) -> None:
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
