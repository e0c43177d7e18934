"""What sits on a module beside its class: hooks, replaced forwards and computed weights are kept, left out, or refused by name."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import dendrofx
from tests.asked import asked
from tests.graph.capture.check import check_both, exact, loaded
from tests.models import compressible

X = torch.randn(6, 20)
SEEN: dict[str, Tensor] = {}


def on_root(model: nn.Module) -> None:
    model.register_forward_hook(lambda m, i, o: 2 * o)


def before_root(model: nn.Module) -> None:
    model.register_forward_pre_hook(lambda m, i: (i[0] + 1,))


def on_linear(model: nn.Module) -> None:
    model[0].register_forward_hook(lambda m, i, o: o.clamp(min=-0.1))


def in_place(model: nn.Module) -> None:
    def halve(module: nn.Module, given: Any, output: Tensor) -> None:
        output.mul_(0.5)

    model[1].register_forward_hook(halve)


def looks(model: nn.Module) -> None:
    model[1].register_forward_hook(lambda m, i, o: SEEN.update(features=o))


def with_keywords(model: nn.Module) -> None:
    model[2].register_forward_hook(lambda m, a, k, o: -o, with_kwargs=True)


def replaced_root(model: nn.Module) -> None:
    was = type(model).forward
    model.forward = types.MethodType(functools.wraps(was)(lambda self, x: 3 * was(self, x)), model)


def replaced_linear(model: nn.Module) -> None:
    model[0].forward = types.MethodType(lambda self, x: nn.functional.linear(x, self.weight), model[0])


def closed_over(model: nn.Module) -> None:
    was = model[2].forward
    model[2].forward = lambda x: was(x) + 1


KEPT: dict[str, Callable[[nn.Module], None]] = {
    "root": on_root, "before the root": before_root, "linear": on_linear, "in place": in_place, "keywords": with_keywords,
    "forward of the root": replaced_root, "forward of a linear": replaced_linear, "forward, a closure": closed_over,
}  # fmt: skip


# Kept without data too; the others are refused then.
TRACED = ("forward of the root", "forward of a linear")


def changed(change: Callable[[nn.Module], Any]) -> nn.Module:
    torch.manual_seed(0)
    model = compressible(20, 64, 10)
    change(model)
    return model.eval()


def routed_exactly(model: nn.Module, example: Tensor | None, rank: int = 4) -> dendrofx.RoutedModule:
    """Routed at tolerance 0."""
    options = {"light": dendrofx.LowRank(rank), "decide": False, "budget": 0.5}
    return exact(dendrofx.transform(model, example, **asked(**options)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("data", [False, True], ids=["without data", "with an example"])
@pytest.mark.parametrize("kind", KEPT)
@torch.no_grad()
def test_what_changes_values_is_kept_or_refused(kind: str, data: bool) -> None:
    model = changed(KEPT[kind])
    if not data and kind not in TRACED:
        with pytest.raises(dendrofx.CaptureError, match=r"there are hooks on |Next step: |it needs inputs"):
            routed_exactly(model, None)
        return
    routed = routed_exactly(model, X if data else None)
    check_both(routed, model, X)
    assert ("bit for bit" in routed.plan.capture) is data


@torch.no_grad()
def test_a_hook_that_only_looks_is_left_out_and_named() -> None:
    model = changed(looks)
    routed = dendrofx.transform(model, X, budget=0, options=dendrofx.Options(decide=False))
    assert routed.plan.capture.endswith("; hooks that only look are left out: 1")
    SEEN.clear()
    torch.testing.assert_close(loaded(routed)(X), routed(X))
    assert SEEN == {}
    torch.testing.assert_close(routed(X), model(X))
    assert SEEN["features"].shape == (6, 64)


COMPUTED: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": lambda m: parametrizations.weight_norm(m[0]),
    "spectral_norm": lambda m: parametrizations.spectral_norm(m[0]),
    "orthogonal": lambda m: parametrizations.orthogonal(m[0]),
    "old weight_norm": lambda m: torch.nn.utils.weight_norm(m[0]),
    "old spectral_norm": lambda m: torch.nn.utils.spectral_norm(m[0])(torch.zeros(1, 20)),
    "pruning": lambda m: prune.l1_unstructured(m[0], "weight", 0.3),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("data", [False, True], ids=["without data", "with an example"])
@pytest.mark.parametrize("kind", COMPUTED)
@torch.no_grad()
def test_computed_weights_are_folded_in_a_copy(kind: str, data: bool) -> None:
    model = changed(COMPUTED[kind])
    wanted, state, made = model(X), copy.deepcopy(model.state_dict()), type(model[0])
    routed = routed_exactly(model, X if data else None)
    assert [s.name for s in routed.plan.routed] == ["0..2"], "the Linear is one again"
    check_both(routed, lambda _: wanted, X)
    assert type(model[0]) is made
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    torch.testing.assert_close(model(X), wanted)


class Unscriptable(nn.Module):
    """What FX's own tracer takes and TorchScript does not."""

    def __init__(self, form: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mlp, self.form = compressible(20, 64, 10), form

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.form(self.mlp(x)) * scale


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda y: y / y.norm(dim=-1, keepdim=True),
    "std": lambda y: y / y.std(dim=-1, keepdim=True),
    "tensor_split": lambda y: torch.cat(torch.tensor_split(y, 3, dim=1)[::-1], 1),
    "einsum": lambda y: torch.einsum("bi,bj->bij", y, y).sum(-1),
}


@pytest.mark.parametrize("kind", FORMS)
@torch.no_grad()
def test_what_does_not_script_goes_another_way(kind: str) -> None:
    model = Unscriptable(FORMS[kind]).eval()
    routed = dendrofx.transform(model, X, budget=0, options=dendrofx.Options(decide=False))
    check_both(routed, model, X)
    torch.testing.assert_close(routed(X, scale=1.0), model(X))


NAMES = ("meta", "graph", "plan", "code", "settings", "front", "forward_counted", "routed", "recompile")


@pytest.mark.parametrize("data", [False, True], ids=["without data", "with an example"])
@torch.no_grad()
def test_a_submodule_may_have_any_name(data: bool) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in NAMES:
                self.add_module(name, compressible(20, 8, 20))

        def forward(self, x: Tensor) -> Tensor:
            for name in NAMES:
                x = x + getattr(self, name)(x)
            return x

    model = Named().eval()
    routed = routed_exactly(model, X if data else None, 2)
    assert len(routed.plan.routed) == len(NAMES)
    check_both(routed, model, X)
