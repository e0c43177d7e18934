"""How a model is called and what it returns, kept for models whose graph knows tensors only.

A graph has tensors in and tensors out. Callers have more: keyword arguments, flags, and outputs that are dicts, dataclasses or
nested tuples. `CallForm` holds what lies between, so that a rewritten module is called as the model was:

    model(input_ids=ids, attention_mask=mask, use_cache=False)   ->   BaseModelOutput(last_hidden_state=...)
    graph(input_ids, attention_mask)                             ->   {"last_hidden_state": ...}

A scripted module returns what the graph returns: one tensor, a dict of tensors, or a tuple.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.errors import InputError
from dendrofx.inputs import Inputs
from dendrofx.outputs import OutputForm, flatten

# Where a graph module's meta keeps its `CallForm`.
CALL = "dendrofx.call"
# What an argument may be that is fixed at capture: its value says all about it.
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)


@dataclass(frozen=True)
class CallForm:
    """The call of a model.

    Attributes:
        model: its class name, for messages.
        parameters: of its forward, those that can be given by position, in order.
        tensors: names of the tensor inputs, in the order of the signature.
        constants: the other arguments, fixed when the model was captured.
        defaults: of the parameters that were left out then, and stay as they were.
        output: the form of what it returns.
    """

    model: str
    parameters: tuple[str, ...]
    tensors: tuple[str, ...]
    constants: Mapping[str, Any]
    defaults: Mapping[str, Any]
    output: OutputForm

    @staticmethod
    def of(model: nn.Module, example: Inputs) -> CallForm:
        """The call that `example` makes, run once.

        Raises:
            InputError: the example does not fit the signature, or holds or returns what a graph cannot.
        """
        given = arguments(model, example)
        tensors = tuple(k for k, v in given.items() if isinstance(v, Tensor))
        constants = {k: v for k, v in given.items() if not isinstance(v, Tensor)}
        for name, value in constants.items():
            if not _is_plain(value):
                raise InputError(
                    f"{type(model).__name__} takes {name}, a {type(value).__name__}: a graph takes tensors and plain values."
                    " Wrap the model in a module whose forward takes each tensor under a name of its own"
                )
        with torch.no_grad():
            found, output = flatten(example.call(model))
        _check_output(type(model).__name__, found, output)
        parameters = inspect.signature(model.forward).parameters.values()
        by_position = tuple(p.name for p in parameters if _takes_position(p))
        defaults = {p.name: p.default for p in parameters if p.name not in given and _is_plain(p.default)}
        return CallForm(type(model).__name__, by_position, tensors, constants, defaults, output)

    def plain(self, inputs: Inputs) -> Inputs:
        """A caller's inputs as the graph takes them: its tensors by name, flags at their captured values dropped.

        Raises:
            InputError: an argument that was not there, or had another value, when the model was captured.
        """
        if len(inputs.args) > len(self.parameters):
            raise InputError(f"{self.model} takes {len(self.parameters)} inputs by position, got {len(inputs.args)}")
        given = dict(zip(self.parameters, inputs.args, strict=False))
        if twice := [name for name, _ in inputs.kwargs if name in given]:
            raise InputError(f"{self.model} got {twice[0]} twice, by position and by name")
        given.update(inputs.kwargs)
        fixed = {**self.defaults, **self.constants}
        for name, value in given.items():
            if name not in self.tensors and not (name in fixed and _same(fixed[name], value)):
                raise InputError(
                    f"{self.model} was captured with {self} and cannot take {name}={_short(value)}: transform it again"
                    " with example_inputs= that hold this argument"
                )
        if missing := [name for name in self.tensors if not isinstance(given.get(name), Tensor)]:
            raise InputError(f"{self.model} was captured with {self}; {missing[0]} is missing")
        return Inputs((), tuple((name, given[name]) for name in self.tensors))

    def restore(self, raw: Any) -> Any:  # noqa: ANN401
        """What the model would have returned, from what the graph returned."""
        if self.output.leaf == "tensor":
            return self.output.build([raw])
        return self.output.build(list(raw.values()) if isinstance(raw, Mapping) else list(raw))

    def __str__(self) -> str:
        """`the inputs input_ids, attention_mask, use_cache=False`."""
        return "the inputs " + ", ".join([*self.tensors, *(f"{k}={v!r}" for k, v in self.constants.items())])


def arguments(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """Inputs by parameter name, in the order of `model.forward`'s signature.

    Raises:
        InputError: they do not fit the signature.
    """
    try:
        bound = inspect.signature(model.forward).bind(*inputs.args, **dict(inputs.kwargs))
    except TypeError as error:
        raise InputError(f"{type(model).__name__} does not take the inputs {inputs}: {error}") from error
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            raise InputError(f"{type(model).__name__} takes *{name}: wrap it in a module with named inputs")
        else:
            found[name] = value
    return found


def _check_output(model: str, found: list[Tensor], output: OutputForm) -> None:
    """Raise `InputError` for an output that cannot be put together again from its tensors."""
    if left := output.leaves("left out"):
        raise InputError(
            f"{model} returns {left[0].name}, a {left[0].value}, which a graph cannot: turn it off, for a cache with"
            " use_cache=False among the inputs or in the model's config"
        )
    if not found:
        raise InputError(f"{model} returns no tensor")
    try:
        same = flatten(output.build(found))[1] == output
    except Exception:
        same = False
    if not same:
        raise InputError(
            f"{model} returns a {getattr(output.kind, '__name__', output.kind)}, which cannot be made again from its fields:"
            " return a dict or a tuple"
        )


def _takes_position(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _is_plain(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, tuple | list) else isinstance(value, _PLAIN)


def _same(captured: Any, value: Any) -> bool:  # noqa: ANN401
    return type(captured) is type(value) and bool(captured == value)


def _short(value: Any) -> str:  # noqa: ANN401
    return str(Inputs((value,)))[1:-1]
