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


@dataclass(frozen=True)
class CallForm:
    """The call of a model.

    Attributes:
        model: its class name, for messages.
        parameters: of its forward, in order.
        tensors: names of the tensor inputs, in the same order.
        constants: the other arguments, fixed when the model was captured.
        output: the form of what it returns.
    """

    model: str
    parameters: tuple[str, ...]
    tensors: tuple[str, ...]
    constants: Mapping[str, Any]
    output: OutputForm

    @staticmethod
    def of(model: nn.Module, example: Inputs) -> CallForm:
        """The call that `example` makes, run once.

        Raises:
            InputError: the example does not fit the signature.
        """
        given = arguments(model, example)
        with torch.no_grad():
            _, output = flatten(example.call(model))
        tensors = tuple(k for k, v in given.items() if isinstance(v, Tensor))
        constants = {k: v for k, v in given.items() if not isinstance(v, Tensor)}
        names = tuple(inspect.signature(model.forward).parameters)
        return CallForm(type(model).__name__, names, tensors, constants, output)

    def plain(self, inputs: Inputs) -> Inputs:
        """A caller's inputs as the graph takes them: its tensors by name, flags at their captured values dropped.

        Raises:
            InputError: an argument that was not there, or had another value, when the model was captured.
        """
        if len(inputs.args) > len(self.parameters):
            raise InputError(f"{self.model} takes {len(self.parameters)} inputs, got {len(inputs.args)}")
        given = {**dict(zip(self.parameters, inputs.args, strict=False)), **dict(inputs.kwargs)}
        for name, value in given.items():
            known = name in self.tensors or (name in self.constants and _same(self.constants[name], value))
            if not known and value is not None:
                flags = "".join(f", {k}={v!r}" for k, v in self.constants.items())
                raise InputError(
                    f"{self.model} was captured with the inputs {', '.join(self.tensors)}{flags} and cannot take"
                    f" {name}={_short(value)}: transform it again with example_inputs= that hold this argument"
                )
        if missing := [name for name in self.tensors if not isinstance(given.get(name), Tensor)]:
            raise InputError(
                f"{self.model} was captured with the inputs {', '.join(self.tensors)}; {missing[0]} is missing"
            )
        return Inputs((), tuple((name, given[name]) for name in self.tensors))

    def restore(self, raw: Any) -> Any:  # noqa: ANN401
        """What the model would have returned, from what the graph returned."""
        if self.output.names == ("output",):
            return self.output.build([raw])
        return self.output.build(list(raw.values()) if isinstance(raw, Mapping) else list(raw))


def _same(captured: Any, value: Any) -> bool:  # noqa: ANN401
    return type(captured) is type(value) and bool(captured == value)


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


def _short(value: Any) -> str:  # noqa: ANN401
    return str(Inputs((value,)))[1:-1]
