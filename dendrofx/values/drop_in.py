"""A graph module that stands where its model stood: called the same way, by `forward` too, and asked the same questions.

TorchScript and FX go on seeing the graph's own forward, which takes tensors by name.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.values.calling import CallForm
from dendrofx.values.meta import CALL


def as_called(graph_level: FunctionType, call: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> FunctionType:
    """Return a method that takes a model's arguments, and that TorchScript reads as the graph's own.

    Args:
        graph_level: the generated method; `inspect.unwrap`, by which TorchScript finds source, leads to it, and its globals are
            those of the result.
        call: what the method does.
    """
    graph_level.__globals__["_dendrofx_call"] = call
    code = _template.__code__.replace(co_filename=graph_level.__code__.co_filename)
    made = FunctionType(code, graph_level.__globals__, graph_level.__name__)
    made.__wrapped__ = graph_level  # type: ignore[attr-defined]
    return made


def _template(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    return _dendrofx_call(self, args, kwargs)  # type: ignore[name-defined]  # noqa: F821


def call_form(module: nn.Module) -> CallForm | None:
    """Return how a graph module is called; None where its graph's inputs are all there is to say."""
    form: CallForm | None = getattr(module, "meta", {}).get(CALL)
    return form


def graph_level(module: Any, name: str = "forward") -> Any:  # noqa: ANN401
    """Return a module's method that takes the graph's tensors by name: of a routed module, a plain graph or a scripted one."""
    return getattr(module, f"graph_{name}", None) or getattr(module, name)


class Original:
    """What can be said about a model without its weights: attributes such as `config`, and methods such as `can_generate()`.

    Args:
        model: of which a copy without weights is kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self.skeleton: nn.Module | None = _skeleton(model)

    def answer(self, name: str) -> Any:  # noqa: ANN401
        """Return an attribute of the original.

        Raises:
            AttributeError: it has none of that name, or one that is made of weights, which are not here.
        """
        if name == "device" and hasattr(type(self.skeleton), "device"):
            return torch.device("cpu")
        if self.skeleton is None or name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self.skeleton, name)
        if isinstance(value, Tensor | nn.Module) or inspect.isgenerator(value):
            raise AttributeError(name)
        return value

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a skeleton that cannot be pickled."""
        try:
            pickle.dumps(self.skeleton)
        except Exception:
            return {"skeleton": None}
        return {"skeleton": self.skeleton}


def _skeleton(model: nn.Module) -> nn.Module | None:
    """Return a copy of a model whose weights are shapes alone; None where there is nothing to ask it."""
    if not _speaks(model):
        return None
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    try:
        return copy.deepcopy(model, memo)
    except Exception:  # the graph does not need it
        return None


def _speaks(model: nn.Module) -> bool:
    """Return whether a model has more to say than any module."""
    plain = set(dir(nn.Module()))
    own = {name for name in dir(model) if not name.startswith("_")} - plain
    return bool(own - set(model._modules) - set(model._parameters) - set(model._buffers))
