"""The signature of a model's forward: its parameters, the names of a graph's inputs among them, and the arguments that fit."""

from __future__ import annotations

import inspect
import re
from typing import Any

from torch import nn

from dendrofx.errors import InputError
from dendrofx.values.inputs import Inputs
from dendrofx.values.outputs import PLAIN, TreeSpec

OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MISSING = object()


def signature_of(model: nn.Module) -> inspect.Signature:
    """Return the signature of a model's forward, without annotations, and without defaults that are no plain values."""
    found = inspect.signature(model.forward)
    plain = [p.replace(annotation=p.empty, default=_plain_default(p)) for p in found.parameters.values()]
    return inspect.Signature(plain)


def _plain_default(parameter: inspect.Parameter) -> Any:  # noqa: ANN401
    default = parameter.default
    return default if default is parameter.empty or isinstance(default, PLAIN) else Unsaid()


class Unsaid:
    """A default of the model's that a caller cannot repeat."""


def bind(signature: inspect.Signature, model: str, inputs: Inputs) -> dict[str, Any]:
    """Return inputs by parameter, in the order of the signature.

    Raises:
        InputError: they do not fit it.
    """
    try:
        return dict(signature.bind(*inputs.args, **dict(inputs.kwargs)).arguments)
    except TypeError as error:
        raise InputError(f"{model} does not take the inputs {inputs}: {error}{_hint(signature, inputs)}") from error


def _hint(signature: inspect.Signature, inputs: Inputs) -> str:
    """Return what was probably meant by inputs of which there are too many."""
    takes = [p for p in signature.parameters.values() if p.kind not in (*OPEN, p.KEYWORD_ONLY)]
    if inputs.kwargs or len(inputs.args) <= len(takes):
        return ""
    if len(inputs.args) == len(takes) + 1:
        names = ", ".join(p.name for p in takes) or "x"
        return f". If its last is a label, pass calibration=[{names} for {names}, _ in loader]"
    return ". Several batches go to calibration=, not to example_inputs="


def names(given: TreeSpec, signature: inspect.Signature) -> tuple[str, ...]:
    """Return the names of a graph's inputs: the path to each tensor, as an identifier."""
    found: list[str] = []
    for leaf in given.leaves("tensor"):
        name = re.sub(r"\W", "_", shown(leaf.name, signature))
        name = f"input_{name}" if not name.isidentifier() or name == "self" else name
        while name in found:
            name += "_"
        found.append(name)
    return tuple(found)


def shown(path: str, signature: inspect.Signature) -> str:
    """Return a path without the parameter that takes all other keywords."""
    first, _, rest = path.partition(".")
    parameter = signature.parameters.get(first)
    return rest if rest and parameter is not None and parameter.kind is inspect.Parameter.VAR_KEYWORD else path


def flags(model: nn.Module, signature: inspect.Signature) -> dict[str, Any]:
    """Return what a model does about keywords that are left out, as far as a config of it says so; None stands for that, too."""
    config = getattr(model, "config", None)
    if config is None or not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()):
        return {}
    found = {}
    for name in ("return_dict", "output_attentions", "output_hidden_states", "use_cache"):
        value = getattr(config, name, MISSING)
        if isinstance(value, PLAIN):
            found[name] = value
    return found
