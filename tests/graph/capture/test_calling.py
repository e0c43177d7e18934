"""A captured model is called as it was, and returns what it did; scripted, its tensors come by name."""

from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.light import LowRank
from dendrofx.lowering.script import script
from dendrofx.rewriting.module import RoutedModule
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE
from dendrofx.values.outputs import flatten
from tests.graph.capture.calls import Flags, Returns
from tests.graph.capture.check import graph_inputs, same
from tests.graph.capture.models import WIDTH, Base

KINDS = [
    "tensor", "tuple", "list", "tuple with None", "nested tuple", "dict", "dict of one", "dict by number", "ordered", "nested",
    "dataclass", "named tuple",
]  # fmt: skip
X, MASK, SHIFT = torch.randn(4, WIDTH), torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.randn(WIDTH)


def module_of(model: nn.Module, example: Any) -> RoutedModule:
    """What `transform` returns where nothing is routed."""
    gm = capture(model.eval(), Inputs.of(example))
    module = RoutedModule(gm, gm.graph)
    module.meta.update(gm.meta)
    return module.eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_outputs_keep_their_form(kind: str) -> None:
    model = Returns(kind).eval()
    module = module_of(model, X)
    simple = ("tensor", "tuple", "list", "tuple with None", "nested tuple", "dict", "dict of one")
    assert (module.meta[CAPTURE].way == "symbolic") is (kind in simple)
    for x in (X, X[:1], torch.randn(9, WIDTH)):
        wanted, got = model(x), module(x)
        assert type(got) is type(wanted)
        assert same(got, wanted)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_scripted_it_returns_a_tensor_a_dict_or_a_tuple(kind: str) -> None:
    model = Returns(kind).eval()
    module = module_of(model, X)
    got = graph_inputs(module, Inputs.of(X)).call(script(module))
    assert type(got) in (Tensor, tuple, dict, list)
    tensors, form = flatten(model(X))
    assert all(map(torch.equal, flatten(got)[0], tensors))
    if kind in ("ordered", "dataclass"):
        assert tuple(got) == form.names


CALLS: list[tuple[Inputs, Inputs]] = [
    (Inputs((X,)), Inputs((), (("x", X),))),
    (Inputs((X, MASK)), Inputs((X,), (("mask", MASK),))),
    (Inputs((X, MASK)), Inputs((), (("mask", MASK), ("x", X), ("shift", None)))),
    (Inputs((X, None, SHIFT)), Inputs((X,), (("shift", SHIFT),))),
    (
        Inputs((X, MASK, SHIFT), (("scale", 0.5),)),
        Inputs((X, MASK, SHIFT), (("scale", 0.5), ("twice", False))),
    ),  # a default
    (Inputs((X,), (("twice", True), ("scale", 3.0))), Inputs((X, None, None), (("scale", 3.0), ("twice", True)))),
]


@pytest.mark.parametrize(("example", "other"), CALLS, ids=lambda v: str(v))
@torch.no_grad()
def test_called_as_the_example_or_in_another_order(example: Inputs, other: Inputs) -> None:
    model = Flags().eval()
    module = module_of(model, example)
    assert same(other.call(module), example.call(model))
    assert same(example.call(module), example.call(model))
    assert same(graph_inputs(module, example).call(script(module)), example.call(model))


class TakesList(Base):
    def forward(self, xs: list[Tensor], flag: bool = True) -> Tensor:
        assert len(xs[0]) > 0
        return self.mlp(xs[0] + xs[1])


class TakesMany(Base):
    def forward(self, *xs: Tensor) -> Tensor:
        return self.mlp(sum(xs))  # type: ignore[arg-type]


class TakesTree(Base):
    def forward(self, obs: dict[str, Any]) -> Tensor:
        return self.mlp(obs["a"] + obs["more"]["b"]) * obs["more"]["n"]


def test_inputs_that_were_not_captured_are_refused() -> None:
    module = module_of(Flags(), Inputs((X, MASK), (("scale", 0.5),)))
    captured = "Flags was captured with the inputs x, mask, scale=0.5"
    again = "transform it again with example_inputs= that hold this argument"
    with pytest.raises(InputError) as caught:
        module(X, MASK, SHIFT, scale=0.5)
    assert str(caught.value) == f"{captured} and cannot take shift=float32[16]: {again}"
    with pytest.raises(InputError) as caught:
        module(X, MASK, scale=1.0)
    assert str(caught.value) == f"{captured} and cannot take scale=1.0: {again}"
    with pytest.raises(InputError, match=r"^Flags was captured with the inputs x, mask, scale=0\.5; mask is missing$"):
        module(X)
    with pytest.raises(InputError, match=r"^Flags does not take the inputs .*: multiple values for argument 'x'$"):
        module(X, MASK, x=X)
    with pytest.raises(InputError, match=r"^Flags does not take the inputs .*: too many positional arguments"):
        module(X, MASK, SHIFT, 2.0)
    with pytest.raises(InputError, match=r"cannot take scale=None: "):
        module(X, MASK, scale=None)
    with pytest.raises(InputError, match=r"cannot take twice=True: "):
        module(X, MASK, scale=0.5, twice=True)
    with pytest.raises(InputError, match=r"got an unexpected keyword argument 'other'$"):
        module(X, MASK, other=1)


def test_a_flag_that_is_left_out_takes_the_models_own_default_or_is_refused() -> None:
    model = Flags().eval()
    module = module_of(model, Inputs((X,), (("scale", 0.5),)))
    with pytest.raises(
        InputError, match=r"cannot leave out scale, which is 1\.0 then: transform it again with example_inputs="
    ):
        module(X)
    module = module_of(model, Inputs((X,), (("scale", 1.0),)))
    with torch.no_grad():
        assert same(module(X), model(X))


TREES: dict[str, tuple[type[nn.Module], Inputs, Inputs, tuple[str, ...]]] = {
    "a list": (TakesList, Inputs(([X, X],)), Inputs((), (("xs", [X[:1], X[1:2]]),)), ("xs_0", "xs_1")),
    "any number": (TakesMany, Inputs((X, X)), Inputs((X[:2], X[:2])), ("xs_0", "xs_1")),
    "a nested dict": (
        TakesTree,
        Inputs(({"a": X, "more": {"b": X, "n": 2}},)),
        Inputs((OrderedDict(more={"n": 2, "b": X[:3]}, a=X[:3]),)),
        ("obs_a", "obs_more_b"),
    ),
}


@pytest.mark.parametrize("kind", TREES)
@torch.no_grad()
def test_tensors_inside_an_argument_are_inputs_by_their_paths(kind: str) -> None:
    build, example, other, names = TREES[kind]
    model = build().eval()
    module = module_of(model, example)
    assert module.meta[CALL].tensors == names
    for inputs in (example, other):
        assert same(inputs.call(module), inputs.call(model))
        assert same(inputs.call(module.forward), inputs.call(model))
        assert same(graph_inputs(module, inputs).call(script(module)), inputs.call(model))


def test_another_form_of_an_argument_is_refused_by_its_path() -> None:
    tree = module_of(TakesTree(), Inputs(({"a": X, "more": {"b": X, "n": 2}},)))
    captured = "TakesTree was captured with the inputs obs.a, obs.more.b, obs.more.n=2"
    for given, why in {
        "obs.more.n": ({"a": X, "more": {"b": X, "n": 3}}, " and cannot take obs.more.n=3: "),
        "kind": ({"a": X, "more": {"b": X, "n": 2.0}}, " and cannot take obs.more.n=2.0: "),
        "missing": ({"a": X, "more": {"n": 2}}, "; obs.more.b is missing"),
        "more": ({"a": X, "c": X, "more": {"b": X, "n": 2}}, " and cannot take obs.c=float32[4, 16]: "),
        "tensor": (X, "; obs cannot be float32[4, 16]"),
    }.values():
        with pytest.raises(InputError) as caught:
            tree(given)
        assert str(caught.value).startswith(captured + why)
    many = module_of(TakesMany(), Inputs((X, X)))
    with pytest.raises(InputError, match=r"xs\.1 is missing$"):
        many(X)
    with pytest.raises(InputError, match=r"cannot take xs\.2=float32\[4, 16\]: "):
        many(X, X, X)


class Cached(Base):
    def forward(self, x: Tensor) -> dict[str, object]:
        assert len(x) > 0
        return {"y": self.mlp(x), "cache": object()}


class Odd(Base):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        assert len(x) > 0
        return defaultdict(None, y=self.mlp(x)) if self.kind is defaultdict else None


@pytest.mark.parametrize(
    ("model", "example", "reason"),
    [
        (
            TakesMany(),
            Inputs((X, {X})),
            "TakesMany takes xs.1, a set: a graph takes tensors and plain values. Wrap the model in a module whose forward takes"
            " each tensor under a name of its own",
        ),
        (
            TakesMany(),
            Inputs((X,), (("y", X),)),
            "TakesMany does not take the inputs (float32[4, 16], y=float32[4, 16]): got an",
        ),
        (
            Cached(),
            Inputs((X,)),
            "Cached returns cache, a object, which a graph cannot: turn it off, for a cache with use_cache=",
        ),
        (
            Odd(defaultdict),
            Inputs((X,)),
            "Odd returns a defaultdict, which cannot be made again from its fields: return a dict",
        ),
        (Odd(object), Inputs((X,)), "Odd returns no tensor"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_calls_that_no_graph_can_keep_are_refused(model: nn.Module, example: Inputs, reason: str) -> None:
    def formed() -> CallForm:
        form = CallForm.of(model.eval(), example)
        return form.returning(example.call(model))

    with pytest.raises(InputError) as caught:
        formed()
    assert str(caught.value).startswith(reason)


class Varied(Base):
    def forward(self, x: Tensor, **named: Tensor) -> Tensor:
        return self.mlp(x + named["shift"]) if len(named) == 1 else x


def test_open_keyword_inputs_go_by_their_names() -> None:
    model, example = Varied().eval(), Inputs((X,), (("shift", SHIFT),))
    form = CallForm.of(model, example)
    assert form.tensors == ("x", "shift")
    with torch.no_grad():
        assert same(module_of(model, example)(X, shift=SHIFT), model(X, shift=SHIFT))


def test_through_transform() -> None:
    """Routed: the same form, at tolerance 0 the same bits, eager and scripted."""
    model = Returns("dataclass").eval()
    batches = [torch.randn(8, WIDTH) for _ in range(8)]
    module = dendrofx.transform(
        model,
        calibration=batches,
        output="hidden",
        light=LowRank(rank=2),
        options=dendrofx.Options(decide=False, tune_seconds=0),
    )
    assert module.plan.routed
    assert CALL in module.meta
    dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), 0.0))
    with torch.no_grad():
        assert same(module(X), model(X))
        got = dendrofx.script(module)(X)
    assert list(got) == ["hidden", "pooled"]
    assert all(map(torch.equal, got.values(), flatten(model(X))[0]))
