"""The mask contract: what a dead row holds must reach no output that the caller reads.

It is checked by experiment on the captured graph: dead rows of every input are replaced, and the outputs compared; live positions
of outputs with a token axis, and all of the others. The example's own mask is tried, and every pattern of live and dead rows
written in its values (`values/masks.py`): full, empty, ragged on the right and on the left, and with dead rows in the middle.

Some models keep the contract for one side alone: a pooler that reads the first token is right while padding is on the right, and
positions that count live rows begin below zero where it is on the left. They are accepted for the example's side, and every call
checks that its mask is of that side (`live_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.graph.capture.variants import variants
from dendrofx.graph.show import first_line
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.difference import ROUNDING, difference
from dendrofx.rows.layout import SAMPLES, TOKENS
from dendrofx.values import numerics
from dendrofx.values.inputs import Inputs
from dendrofx.values.masks import EMPTY, PATTERNS, live_of, patterns
from dendrofx.values.outputs import flatten

ANY, RIGHT, LEFT = "any", "right", "left"
GUESSED = ". The example has no padding, so how it is marked is a guess: pass inputs with padding"


class MaskCheck:
    """The contract of one mask.

    Args:
        dead_rows: the mask's name, after `~` where it marks the dead rows.
        example: inputs as the graph takes them.
    """

    def __init__(self, dead_rows: str, example: Inputs) -> None:
        self.dead_rows, self.example = dead_rows, example
        self.name, self.inverted = mask_of(dead_rows)

    def check(self, gm: fx.GraphModule, analysis: RowAnalysis) -> str:
        """Change what dead rows hold, and compare the outputs of a graph with all rows.

        Returns:
            The side of the padding for which the contract holds: "any", "right" or "left".

        Raises:
            InputError: it holds for none that fits the example; names the outputs that moved.
        """
        broken = self.broken(gm, analysis, ANY)
        if not broken:
            return ANY
        held = [side for side in (RIGHT, LEFT) if not self.broken(gm, analysis, side)]
        for side in held:
            if fits(self.alive(self.example), side):
                return side
        raise InputError(
            f"dead_rows={self.dead_rows!r}: the mask contract does not hold. When dead rows of the inputs change,"
            f" {' and '.join(broken)}{f'; it holds for padding on the {held[0]} alone' if held else ''}{self.hint(gm, analysis)}"
        )

    def hint(self, gm: fx.GraphModule, analysis: RowAnalysis) -> str:
        """Return what to do about a contract that does not hold."""
        other = self.name if self.inverted else f"~{self.name}"
        if not MaskCheck(other, self.example).broken(gm, analysis, ANY):
            return f". It holds for the inverted mask: pass dead_rows={other!r}"
        step = ". The model lets padding reach its outputs (a pooling over all tokens, say): transform the part before that"
        return step if bool((self.mask != 0).any() & (self.mask == 0).any()) else f"{step}{GUESSED}"

    def broken(self, gm: fx.GraphModule, analysis: RowAnalysis, side: str) -> list[str]:
        """Return what breaks the contract for padding on a side: outputs that move and how far, or a mask that is refused."""
        generator = torch.Generator().manual_seed(0)
        layouts = {str(n.target): analysis.layout(n) for n in gm.graph.nodes if n.op == "placeholder"}
        worst: dict[str, float] = {}
        for what, inputs in self.variants(side):
            before = self.run(gm, inputs, what)
            if isinstance(before, str):
                if what in PATTERNS and what != EMPTY:
                    return [f"{what} are refused ({before})"]
                continue
            alive, changed = self.alive(inputs), {}
            for key, value in inputs.kwargs:
                rows = layouts[key].startswith(SAMPLES + TOKENS) and key != self.name
                changed[key] = _with_other_dead_rows(value, alive, generator) if rows else value
            after = Inputs((), tuple(changed.items())).call(gm)
            for output, far in differences(before, after, alive).items():
                worst[output] = max(worst.get(output, 0.0), far)
        return [f"output '{k}' moves by {v:.2g} of its largest value" for k, v in worst.items() if not v <= ROUNDING]

    def run(self, gm: fx.GraphModule, inputs: Inputs, what: str) -> Any:  # noqa: ANN401
        """Return the graph's output, or why it rejects a variant of the example whose sizes or masks it is not made for."""
        try:
            return inputs.call(gm)
        except Exception as error:
            if not what:
                raise
            return first_line(error)

    def compare(self, captured: fx.GraphModule, live: fx.GraphModule, side: str) -> float:
        """Return the largest difference of an output on live rows from that on all rows, relative to its largest value.

        Raises:
            InputError: more than rounding; names the output and the inputs.
        """
        worst, allowed = 0.0, numerics.rounding(*{p.dtype for p in captured.parameters() if p.is_floating_point()})
        for what, inputs in self.variants(side):
            wanted = self.run(captured, inputs, what)
            if isinstance(wanted, str):
                continue
            try:
                got = inputs.call(live)
            except RuntimeError as error:
                raise InputError(f"dead_rows={self.dead_rows!r}: {first_line(error)}") from error
            far = differences(wanted, got, self.alive(inputs))
            for output, value in far.items():
                if not value <= allowed:
                    raise InputError(
                        f"dead_rows={self.dead_rows!r}: on live rows, output '{output}' is {value:.2g} of its largest value away"
                        f" from the model's on {inputs}: what padding holds reaches it. Transform the part of the model before"
                        " that"
                    )
            worst = max([worst, *far.values()])
        return worst

    def alive(self, inputs: Inputs) -> Tensor:
        """Return bool[batch, tokens], the live rows of inputs."""
        return live_mask(dict(inputs.kwargs)[self.name], self.inverted)

    @property
    def mask(self) -> Tensor:
        """Return the example's own."""
        return cast(Tensor, dict(self.example.kwargs)[self.name])

    def variants(self, side: str) -> Iterator[tuple[str, Inputs]]:
        """Yield, with its name, the example and all variants and patterns of its mask that have their padding on a side."""
        for what, inputs in chain(variants(self.example), self.patterns()):
            if fits(self.alive(inputs), side):
                yield what, inputs

    def patterns(self) -> Iterator[tuple[str, Inputs]]:
        """Yield the example with masks of every pattern."""
        for what, mask in patterns(self.mask, self.inverted):
            yield what, Inputs((), tuple((k, mask if k == self.name else v) for k, v in self.example.kwargs))


def mask_of(dead_rows: str) -> tuple[str, bool]:
    """Return the mask's name, and whether it marks the dead rows: `~padding` -> padding, True."""
    return dead_rows.removeprefix("~"), dead_rows.startswith("~")


def fits(alive: Tensor, side: str) -> bool:
    """Tell whether all dead rows of bool[batch, tokens] are on a side of the live ones."""
    steps = alive[:, 1:].int() - alive[:, :-1].int()
    return side == ANY or not bool((steps > 0 if side == RIGHT else steps < 0).any())


def live_mask(mask: Tensor, inverted: bool) -> Tensor:
    """Return bool[batch, tokens], as `live_rows` reads a mask; samples without a live row count as all live."""
    alive = live_of(mask, inverted)
    return alive | ~alive.any(1, keepdim=True)


def _with_other_dead_rows(x: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
    """Return values with other dead rows: integers by those of random rows, which are valid, floats by noise."""
    flat, dead = x.flatten(0, 1).clone(), ~alive.reshape(-1)
    if x.is_floating_point():
        noise = torch.randn(flat.shape, generator=generator, dtype=x.dtype) * (3 * float(x.std(correction=0)) + 1)
        flat[dead] = noise[dead]
    else:
        flat[dead] = flat[torch.randint(len(flat), (int(dead.sum()),), generator=generator)]
    return flat.view_as(x)


def differences(before: object, after: object, alive: Tensor) -> dict[str, float]:
    """Return by output how far apart is what the caller reads: live positions of row-shaped outputs, and all of the others."""
    found = {}
    first, form = flatten(before)
    for name, a, b in zip(form.names, first, flatten(after)[0], strict=True):
        if a.dim() >= 2 and a.shape[:2] == alive.shape:
            a, b = a[alive], b[alive]
        found[name] = difference(a, b)
    return found
