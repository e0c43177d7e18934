"""What tests of capture compare."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import dendrofx
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL
from dendrofx.values.outputs import flatten


def same(a: Any, b: Any) -> bool:
    """Two outputs have one form and the same bits."""
    (first, form), (second, other) = flatten(a), flatten(b)
    return form == other and all(map(torch.equal, first, second))


def graph_inputs(gm: nn.Module, inputs: Inputs) -> Inputs:
    """A call's inputs as the graph, or what is scripted from it, takes them."""
    form = getattr(gm, "meta", {}).get(CALL)
    return inputs if form is None else form.plain(inputs)


def captured(model: nn.Module, *inputs: Any, **options: Any) -> fx.GraphModule:
    """The graph of a model in eval mode, for a batch or without."""
    return capture(model.eval(), *map(Inputs.of, inputs), **options)


def sites(gm: fx.GraphModule) -> tuple[tuple[str, ...], dict[str, str]]:
    found = find_sites(gm)
    return tuple(s.name for s in found), {r.site: r.reason for r in found.refused}


def loaded(module: nn.Module) -> Any:
    """What a user of the file gets."""
    file = io.BytesIO()
    torch.jit.save(dendrofx.script(module), file)
    file.seek(0)
    return torch.jit.load(file)


def exact(module: Any) -> Any:
    """A routed module whose rows all take the full branch."""
    dendrofx.set_tolerances(module, dict.fromkeys(dendrofx.tolerances(module), 0.0))
    return module


def check_both(routed: nn.Module, model: Callable[..., Any], *x: Tensor) -> None:
    """The module and its artifact give what the model gives."""
    for module in (routed, loaded(routed)):
        torch.testing.assert_close(module(*x), model(*x))


@contextmanager
def refused(says: str, kind: type[Exception] = dendrofx.InputError, whole: bool = True) -> Iterator[None]:
    """An error with this message, or that begins with it."""
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value)
    assert said == says if whole else said.startswith(says), said
