"""Other sizes of every axis of every input, each on its own: what a graph has fixed there, and its model has not.

An example says nothing about which of its sizes are part of the model. So each axis is run at other sizes alone, and axes of one
size together. Where the model rejects them and the graph does too, or both give the same, nothing is fixed. Where they differ,
the graph holds for less:

    mask.size(1) == x.size(1)    all axes of that size changed together are right: the two have to be alike
    docs.size(0) == 50           they are not: the size is in the graph

Such a line becomes a guard of every call (`values/guards.py`), as do those that torch.export states itself, unless the graph
fails by itself where they do not hold. The number of samples is never fixed: a graph that does that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor

from dendrofx.graph.capture.check import DiffersError
from dendrofx.graph.show import first_line
from dendrofx.values.bounds import strongest
from dendrofx.values.calling import CallForm
from dendrofx.values.difference import difference
from dendrofx.values.guards import broken, equal, independent, is_equality, is_simple
from dendrofx.values.inputs import Inputs
from dendrofx.values.numerics import rounding
from dendrofx.values.outputs import Output, flatten

Axis = tuple[str, int]
# Of more axes of one size, not every pair is tried.
MOST_OF_A_SIZE = 6
REJECTS = "the model rejects"
ENOUGH = 4  # tries against one guard
# Sizes that a graph of one run is tried at besides.
SIZES = (1, 2, 3, 4, 5, 7, 9, 12, 17, 33, 65, 129, 257)


@dataclass(frozen=True)
class Pair:
    """A model and a graph of it, each from a graph's inputs to an output."""

    model: Callable[[Inputs], Any]
    graph: Callable[[Inputs], Any]

    def apart(self, inputs: Inputs) -> str:
        """Say in what way they differ on some inputs; empty where they do not, or both reject them."""
        wanted, got = _outcome(self.model, inputs.copied()), _outcome(self.graph, inputs)
        if isinstance(wanted, Exception):
            return "" if isinstance(got, Exception) else f"{REJECTS} it ({first_line(wanted)})"
        if any(bool(t.isnan().any()) for t in wanted[0]):
            return ""
        if isinstance(got, Exception):
            return f"the graph fails on it: {first_line(got)}"
        far = difference(wanted, got)
        near = rounding(*(t.dtype for t in wanted[0] if t.is_floating_point()))
        return "" if far <= near else f"the graph's output is {far:.2g} of the largest away"

    def right(self, inputs: Inputs) -> bool:
        """Return whether the model takes the inputs, and the graph gives the same."""
        return not isinstance(_outcome(self.model, inputs.copied()), Exception) and not self.apart(inputs)


class SizeTrial:
    """One graph at other sizes than its example's.

    Args:
        pair: the graph, without guards, and its model.
        example: inputs as the graph takes them, few samples.
        form: of the call, with the guards that torch stated.
        limits: input, axis and largest size that the graph may have been made for; one more is tried.
    """

    def __init__(self, pair: Pair, example: Inputs, form: CallForm, limits: Iterable[tuple[str, int, int]]) -> None:
        self.pair, self.example, self.form, self.limits = pair, example, form, sorted(limits)
        self.axes = {(name, axis): n for name, t in example.kwargs for axis, n in enumerate(t.shape) if n > 0}
        self.certain: list[str] = []
        self.tried: list[tuple[Inputs, str]] = []
        self.found: list[str] = []
        self.narrower: list[str] = []  # of them, those under which the model holds for more

    @torch.no_grad()
    def try_sizes(self) -> None:
        """Run many sizes of the axes, for a graph of one run: a branch on a size (`if x.size(0) > 100`) is fixed in it unsaid.

        Between the sizes that were run the graph is taken to hold; outside of the first that is wrong, it does not.
        """
        for axes in self.joint():
            size, found = self.axes[axes[0]], {}
            for up in (True, False):
                good = size
                for count in [n for n in sorted(SIZES, reverse=not up) if (n > size) is up and n != size]:
                    if self.apart(self.resized(axes, count)):
                        found["<=" if up else ">="] = good, self.tried[-1][1]
                        break
                    good = count
            if len(found) == 2 and {good for good, _ in found.values()} == {size}:
                found = {"==": found["<="]}
            for sign, (good, why) in found.items():
                self.note(f"{_size(axes[0])} {sign} {good}", why)

    def joint(self) -> Iterator[list[Axis]]:
        """Give axes that change together: the samples, and those of one size in one place."""
        carrying = [a for a in self.axes if a[1] == 0 and a[0] not in self.example.shared]
        if carrying:
            yield carrying
        yield from ([axis] for axis in self.axes if axis not in carrying)
        for axes in _groups(self.axes):
            if len({place for _, place in axes}) == 1 and axes != carrying:
                yield axes

    @torch.no_grad()
    def guards(self) -> tuple[str, ...]:
        """Return the guards under which the graph is its model.

        Raises:
            DiffersError: the number of samples is fixed.
        """
        self.certain = [g for g in self.form.guards if not is_simple(g) and not self.needless(g)]
        self.alone()
        self.together()
        for name, axis, most in self.limits:
            size = self.axes[name, axis]
            self.apart(self.resized([a for a, n in self.axes.items() if n == size and a[1] == axis], most + 1))
        stated = [g for g in self.form.guards if is_simple(g) or g in self.certain]
        guards = independent([*stated, *self.found])
        kept = strongest([g for g in guards if g in self.found or not self.implied(g)])
        self.narrower = [g for g in kept if g in self.narrower or (g not in self.found and self.narrows(g))]
        return kept

    def needless(self, guard: str) -> bool:
        """Return whether the graph is right where a stated guard does not hold: torch states some for sizes of 1 alone."""
        tries = (self.resized(axes, n) for axes in self.joint() for n in (*_others(self.axes[axes[0]]), *SIZES[:9]))
        against = islice((inputs for inputs in tries if broken([guard], dict(inputs.kwargs)) is not None), ENOUGH)
        right = [self.pair.right(inputs) for inputs in against]
        return bool(right) and all(right)

    def alone(self) -> None:
        """Find the guards of axes that are changed on their own."""
        for axis, size in self.axes.items():
            for count in _others(size):
                if why := self.apart(self.resized([axis], count)):
                    self.note(self.alike(axis, count) or self.fixed(axis, count, why), why)
                    break

    def together(self) -> None:
        """Find those of axes of one size that are changed together: the model may take none of them alone."""
        for axes in _groups(self.axes):
            for count in _others(self.axes[axes[0]]):
                if why := self.apart(self.resized(axes, count)):
                    self.note(self.fixed(axes[0], count, why), why)
                    break

    def apart(self, inputs: Inputs) -> str:
        """Compare as `Pair.apart` does; inputs that a certain guard or one that was found refuses are not run."""
        if broken([*self.certain, *self.found], dict(inputs.kwargs)) is not None:
            return ""
        why = self.pair.apart(inputs)
        self.tried.append((inputs, why))
        return why

    def implied(self, guard: str) -> bool:
        """Return whether the graph was found to fail, or to be right, wherever a stated guard does not hold."""
        against = [why for inputs, why in self.tried if broken([guard], dict(inputs.kwargs)) is not None]
        return is_simple(guard) and bool(against) and not any(against)

    def note(self, guard: str, why: str) -> None:
        """Keep a guard that was found, and whether the model takes what it refuses."""
        self.found.append(guard)
        if not why.startswith(REJECTS) and not is_equality(guard):  # that inputs fit together is no news
            self.narrower.append(guard)

    def narrows(self, guard: str) -> bool:
        """Return whether a stated guard may refuse what the model takes."""
        against = [why for inputs, why in self.tried if why and broken([guard], dict(inputs.kwargs)) is not None]
        return not is_equality(guard) and not (against and all(why.startswith(REJECTS) for why in against))

    def alike(self, axis: Axis, count: int) -> str:
        """Return the guard that an axis has the size of another one, where both may change; else nothing."""
        same = [a for a, size in self.axes.items() if size == self.axes[axis] and a != axis]
        for others in (same, *([a] for a in same if len(same) > 1)):
            if others and self.pair.right(self.resized([axis, *others], count)):
                return equal(_size(axis), _size(next((a for a in others if a[1] == axis[1]), others[0])))
        return ""

    def fixed(self, axis: Axis, count: int, why: str) -> str:
        """Return the guard that an axis keeps its size.

        Raises:
            DiffersError: the axis is that of the samples.
        """
        name, place = axis
        if place == 0 and name not in self.example.shared and self.example.samples > 1:
            if why.startswith(REJECTS):
                return f"{_size(axis)} {'<' if count > self.axes[axis] else '>'} {count}"
            what = f" with {count} samples"
            raise DiffersError(
                f"the captured graph of {self.form.model} holds for {self.axes[axis]} samples alone:{what}, {why}", what
            )
        return f"{_size(axis)} == {self.axes[axis]}"

    def resized(self, axes: list[Axis], count: int) -> Inputs:
        """Return the inputs with `count` entries in some axes: the first, again and again."""

        def changed(name: str, t: Tensor) -> Tensor:
            for key, axis in axes:
                if key == name:
                    t = t.index_select(axis, torch.arange(count) % t.size(axis))
            return t

        return Inputs((), tuple((name, changed(name, t)) for name, t in self.example.kwargs), self.example.shared)


def _outcome(run: Callable[[Inputs], Any], inputs: Inputs) -> Output | Exception:
    try:
        return flatten(run(inputs))
    except Exception as error:
        return error


def _size(axis: Axis) -> str:
    return f"{axis[0]}.size({axis[1]})"


def _others(size: int) -> list[int]:
    """Return the sizes that are tried instead of one."""
    return list(dict.fromkeys(n for n in (size - 1, size + 1, 1) if 1 <= n != size))


def _groups(axes: dict[Axis, int]) -> Iterator[list[Axis]]:
    """Give axes of one size: all of them, and as pairs where they are few."""
    groups: dict[int, list[Axis]] = {}
    for axis, size in axes.items():
        groups.setdefault(size, []).append(axis)
    for group in groups.values():
        if len(group) > 1:
            yield group
        if 2 < len(group) <= MOST_OF_A_SIZE:
            yield from (list(pair) for pair in combinations(group, 2))
