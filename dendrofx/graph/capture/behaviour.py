"""What a model does beside computing: found by running a stand-in of it, never the caller's own module on the caller's own tensors.

A graph computes outputs from inputs. What a model does beside that cannot be kept, and is refused by name: writing into its
inputs, changing its buffers or parameters, drawing random numbers. Hooks are looked at one by one: one that only looks is left
out of the graph and named; one that changes values is part of the function, which a capture by running keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from dendrofx.errors import CaptureError
from dendrofx.graph.activations import is_in_place
from dendrofx.graph.capture.variants import FEW
from dendrofx.values.calling import CallForm
from dendrofx.values.difference import difference
from dendrofx.values.inputs import Inputs
from dendrofx.values.numerics import rounding
from dendrofx.values.outputs import Output, flatten

ROOT = "the model"
_KINDS = ("_forward_pre_hooks", "_forward_hooks")


@dataclass(frozen=True)
class Behaviour:
    """What one run showed.

    Attributes:
        output: the model's.
        values: the same, apart from the model's own tensors.
        few: the example, or a few of its samples where the model takes these alone.
        looking: names of modules whose hooks changed nothing.
        changing: names of modules whose hooks changed values.
    """

    output: Any
    values: Output
    few: Inputs
    looking: tuple[str, ...] = ()
    changing: tuple[str, ...] = ()


@torch.no_grad()
def observe(model: nn.Module, form: CallForm, example: Inputs) -> Behaviour:
    """Run a stand-in of the model on copies of an example, and look at what it changes.

    Args:
        model: a copy that may be changed, with the original's parameters; its hooks are watched, and then as they were.
        form: how it is called.
        example: inputs as the graph takes them.

    Raises:
        CaptureError: it writes into an input, changes a buffer or a parameter, or gives another output every time.
    """
    name, inputs = type(model).__name__, example.copied()
    versions = {k: t._version for k, t in inputs.kwargs}
    state = held(model)
    weights = {k: (t, t._version) for k, t in model.named_parameters() if not t.is_inference()}
    with _watched(model) as (looked, changed):
        output = form.call(model, inputs)
        _refuse_writes(name, example, inputs, versions)
        _refuse_state(name, model, state, weights)
        values = _cloned(output)
        few, first = _few(model, form, example, values)
        again = form.call(model, few.copied())
    if not difference(first, flatten(again)) <= rounding():
        raise CaptureError(
            f"{name} gives another output for the same inputs every time: {_randomness(model, form, few)}"
        )
    changing = tuple(dict.fromkeys(changed))
    return Behaviour(output, values, few, tuple(m for m in dict.fromkeys(looked) if m not in changing), changing)


def _few(model: nn.Module, form: CallForm, example: Inputs, values: Output) -> tuple[Inputs, Output]:
    """Return a few of the samples and the output for them; the whole example where there are few, or it cannot be cut."""
    if example.samples <= FEW:
        return example, values
    few = example.take(torch.arange(FEW))
    try:
        return few, _cloned(form.call(model, few.copied()))
    except Exception:
        return example, values


State = dict[str, tuple[Tensor, int, Tensor]]


def held(model: nn.Module) -> State:
    """Return what a model holds beside its parameters: each buffer, its version and its values."""
    return {k: (t, t._version, t.clone()) for k, t in model.named_buffers()}


def refuse_kept(gm: fx.GraphModule, own: nn.Module, state: State) -> None:
    """Refuse a trace that changed a buffer, or writes into an input: what `observe` sees where there are inputs to run on.

    Args:
        gm: the graph.
        own: the copy that was traced.
        state: what it held before.

    Raises:
        CaptureError: names the buffer or the input.
    """
    _refuse_state(type(gm).__name__, own, state, {})
    for node in gm.graph.nodes:
        into = node.args[0] if node.args else None
        if is_in_place(node) and isinstance(into, fx.Node) and into.op == "placeholder":
            raise CaptureError(_written(type(gm).__name__, str(into.target)))


def _refuse_writes(name: str, example: Inputs, inputs: Inputs, versions: dict[str, int]) -> None:
    """Raise `CaptureError` where a call changed its inputs in place."""
    for (key, before), (_, after) in zip(example.kwargs, inputs.kwargs, strict=True):
        if after._version != versions[key] or not _equal(before, after):
            raise CaptureError(_written(name, key))


def _written(model: str, name: str) -> str:
    return (
        f"{model} writes into its input '{name}' in place, which a graph must not: in its forward work on a copy,"
        f" {name} = {name}.clone()"
    )


def _refuse_state(
    name: str,
    model: nn.Module,
    state: State,
    weights: Mapping[str, tuple[Tensor, int]],
) -> None:
    """Raise `CaptureError` where a call changed what the model holds."""
    now = dict(model.named_buffers())
    for key, (tensor, version, value) in state.items():
        if now.get(key) is not tensor or tensor._version != version or not _equal(tensor, value):
            raise CaptureError(
                f"{name} changes its buffer '{key}' in forward: a graph keeps no state from call to call. Transform the part of"
                " the model that keeps none"
            )
    if new := [key for key in now if key not in state]:
        raise CaptureError(f"{name} makes the buffer '{new[0]}' in forward: call it once before it is transformed")
    for key, (tensor, version) in weights.items():
        if tensor._version != version:
            raise CaptureError(f"{name} changes its parameter '{key}' in forward: a graph keeps no state")


def _equal(a: Tensor, b: Tensor) -> bool:
    """Say whether two tensors have the same values, and NaN in the same places."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or (a.is_floating_point() and torch.equal(a.nan_to_num(), b.nan_to_num()))


def _randomness(model: nn.Module, form: CallForm, example: Inputs) -> str:
    """Say where two runs on the same inputs differ: why, as far as it can be told."""
    runs = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(0)
            runs.append(_cloned(form.call(model, example.copied())))
    if difference(*runs) <= rounding():
        return (
            "it draws random numbers (dropout with training=True, torch.rand): a graph is compared with it, and has to give the"
            " same. Turn them off"
        )
    return "it counts its calls, or draws random numbers that are not torch's. Turn that off"


def _cloned(output: Any) -> Output:  # noqa: ANN401
    tensors, form = flatten(output)
    return [t.clone() for t in tensors], form


class _watched:
    """While a model runs, note which modules' hooks ran and changed nothing, and which changed values."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.looked: list[str] = []
        self.changed: list[str] = []
        self.kept: list[tuple[Any, Any]] = []

    def __enter__(self) -> tuple[list[str], list[str]]:
        for name, module in self.model.named_modules():
            for kind in _KINDS:
                hooks = getattr(module, kind)
                self.kept.append((hooks, dict(hooks)))
                for key, hook in list(hooks.items()):
                    hooks[key] = self.watch(name or ROOT, hook)
        return self.looked, self.changed

    def __exit__(self, *_: object) -> None:
        for hooks, before in self.kept:
            hooks.clear()
            hooks.update(before)

    def watch(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return the hook, and a note of what it did."""

        def watched(*args: Any) -> Any:  # noqa: ANN401  (a hook's own)
            tensors = flatten(list(args[1:]))[0]
            before = [(t._version, t.clone()) for t in tensors]
            result = hook(*args)
            after = flatten(list(args[1:]))[0]
            same = len(after) == len(tensors) and all(a is b for a, b in zip(tensors, after, strict=True))
            wrote = any(t._version != v or not _equal(t, was) for t, (v, was) in zip(tensors, before, strict=True))
            (self.looked if result is None and same and not wrote else self.changed).append(name)
            return result

        return watched


def drop_hooks(model: nn.Module, keep: Sequence[str] = ()) -> None:
    """Take hooks off a copy, but for those of some modules, by name."""
    for name, module in model.named_modules():
        for kind in (*_KINDS, "_backward_hooks", "_backward_pre_hooks"):
            if (name or ROOT) not in keep:
                getattr(module, kind).clear()


def has_own_forward(module: nn.Module) -> bool:
    """Return whether `forward` was replaced on a module: it is not what its class says."""
    return "forward" in vars(module)


def hooked(model: nn.Module) -> Iterator[str]:
    """Return the names of the modules that have hooks."""
    for name, module in model.named_modules():
        if any(getattr(module, kind) for kind in _KINDS):
            yield name or ROOT
