"""What a mask is checked on: the example, its variants, and patterns of live and dead rows, each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, fx

from dendrofx.graph.capture.variants import variants
from dendrofx.rows.layout import TOKENS
from dendrofx.values.inputs import Inputs
from dendrofx.values.masks import HOLES, PATTERNS, patterns
from dendrofx.values.meta import CALL

# That patterns are written into: enough for all of them, and unlike sizes of a model.
FEW_TOKENS = 13


def mask_variants(example: Inputs, short: Inputs, name: str, inverted: bool) -> Iterator[tuple[str, Inputs]]:
    """Yield, with its name, the example, every pattern of its mask, and its other variants, each of them once.

    Patterns are written into a few tokens; holes, which are the only one that is everywhere, into all of them.

    Args:
        example: inputs as the graph takes them.
        short: the same with few tokens, or the example itself; see `shortened`.
        name: of the mask.
        inverted: zeros mark live rows.
    """
    tried: list[Inputs] = []
    few = () if short is example else chain(_patterns(short, name, inverted), variants(short))
    every = chain([("", example)], _patterns(example, name, inverted), variants(example))
    for place, (what, inputs) in [*(("all", found) for found in every), *(("few", found) for found in few)]:
        cut = short is not example and _is_pattern(what) and not what.endswith(HOLES)
        if cut is (place == "few") and not any(_same(inputs, other) for other in tried):
            tried.append(inputs)
            yield what, inputs


def shortened(gm: fx.GraphModule, example: Inputs, tokens: int, layouts: Mapping[str, str]) -> Inputs:
    """Return the example's first tokens; all of it where there are few, or where the graph does not take less.

    Args:
        gm: the graph.
        example: inputs as it takes them.
        tokens: of the example.
        layouts: of the inputs, by name.
    """
    if tokens < 2 * FEW_TOKENS:
        return example
    cut = Inputs((), tuple((k, _first_tokens(v, layouts[k])) for k, v in example.kwargs))
    try:
        if (form := gm.meta.get(CALL)) is not None:
            form.check(dict(cut.kwargs))
        cut.call(gm)
    except Exception:  # its size is part of the model
        return example
    return cut


def _patterns(example: Inputs, name: str, inverted: bool) -> Iterator[tuple[str, Inputs]]:
    for what, mask in patterns(dict(example.kwargs)[name], inverted):
        yield what, Inputs((), tuple((k, mask if k == name else v) for k, v in example.kwargs))


def _first_tokens(x: Tensor, layout: str) -> Tensor:
    for axis, letter in enumerate(layout):
        x = x.narrow(axis, 0, FEW_TOKENS) if letter == TOKENS else x
    return x


def _is_pattern(what: str) -> bool:
    return what.removeprefix(" with ").removesuffix(" inverted") in PATTERNS


def _same(a: Inputs, b: Inputs) -> bool:
    return all(x is y or (x.shape == y.shape and torch.equal(x, y)) for x, y in zip(a.tensors, b.tensors, strict=True))
