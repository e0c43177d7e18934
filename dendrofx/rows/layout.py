"""Layouts: which axes of a value count samples and tokens.

A layout has one letter per axis: `b` samples, `t` tokens, `.` features (a fixed size), `?` anything else.

    input_ids        [batch, tokens]                   bt
    hidden states    [batch, tokens, 384]              bt.
    split in heads   [batch, 12, tokens, 32]           b.t.
    scores           [batch, 12, tokens, tokens]       b.tt   two token axes: no row can be told apart, see `RowAnalysis`

They are read off the symbolic sizes that `torch.export` leaves: two axes have the same letter when they have the same symbol
for every batch, not because they happened to be equal in one.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from dendrofx.graph.shapes import shape, tensors

SAMPLES, TOKENS, FEATURES, OPAQUE = "b", "t", ".", "?"


def has_rows(layout: str) -> bool:
    """Tell whether a layout has one sample axis and one token axis, and all others are features."""
    return layout.count(SAMPLES) == 1 and layout.count(TOKENS) == 1 and OPAQUE not in layout


def fixed(layouts: Iterable[str]) -> bool:
    """Tell whether no layout counts samples or tokens: weights and constants."""
    return not set("".join(layouts)) & {SAMPLES, TOKENS, OPAQUE}


class Letters:
    """Which symbols count samples, which tokens.

    Samples are counted by axis 0 of every input with two axes or more. Several symbols may do so, because a model need not
    compare the lengths of its inputs; that they are equal is checked in every call (`unpad_rows`). Tokens are counted by axis 1
    of the mask, and of the others where they have one length: a second sequence has rows of its own, which no mask of the
    first can speak for.

    Args:
        gm: a module captured by export.
        mask: the input whose axes are samples and tokens; without it the first that has both.

    Attributes:
        letter: by symbol.
    """

    def __init__(self, gm: fx.GraphModule, mask: str | None = None) -> None:
        given = {str(n.target): shape(n) for n in gm.graph.nodes if n.op == "placeholder" and tensors(n)}
        samples = {sizes[0] for sizes in given.values() if len(sizes) > 1}
        lengths = {name: sizes[1] for name, sizes in given.items() if len(sizes) > 1 and isinstance(sizes[1], str)}
        tokens = {lengths.get(mask or "", next(iter(lengths.values()), ""))}
        if mask in lengths and len(others := {s for name, s in lengths.items() if name != mask}) == 1:
            tokens |= others
        self.letter: dict[str, str] = {}
        for size in (size for size in samples | tokens if isinstance(size, str) and size):
            both = size in samples and size in tokens
            self.letter[size] = OPAQUE if both else SAMPLES if size in samples else TOKENS

    def of(self, node: fx.Node) -> str:
        """Return a node's layout; "?" alone where its tensors differ or an axis cannot be told."""
        layouts = {"".join(map(self.axis, sizes)) for sizes in tensors(node)}
        return layouts.pop() if len(layouts) == 1 else "" if not layouts else OPAQUE

    def axis(self, size: int | str) -> str:
        """Return the letter of one size."""
        return FEATURES if isinstance(size, int) else self.letter.get(size, OPAQUE)
