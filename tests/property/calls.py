"""Calls of a random module: like those that it was transformed on, and unlike them in one respect each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.property.draft import BATCH, DOCS, TOKENS, Argument, Draft, Slot

# Sizes that an axis is tried with beside its usual one: one, odd and even, below and above the usual, above a limit.
OTHERS = {BATCH: (1, 3, 10), TOKENS: (4, 10, 12), DOCS: (2, 9)}
SAME, SIZES, FLAGS, LEFT_OUT, RAISES = "same", "sizes", "flags", "left out", "raises"


@dataclass(frozen=True)
class Form:
    """What a call gives, all but values.

    Attributes:
        sizes: of the named axes.
        given: of the arguments that may be left out, those that are not: flags with their values, tensors with None.
        by_name: pass everything by name.
    """

    sizes: Mapping[str, int]
    given: Mapping[str, Any]
    by_name: bool = False


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        what: how it differs from the example's: one of `SAME`, `SIZES`, `FLAGS`, `LEFT_OUT`, `RAISES`.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    what: str = SAME

    @property
    def batch(self) -> Any:
        """As an example or a calibration batch gives it: a tuple, or a dict."""
        return dict(self.kwargs) if self.kwargs else self.args

    def __str__(self) -> str:
        shown = [_shown(a) for a in self.args] + [f"{k}={_shown(v)}" for k, v in self.kwargs.items()]
        return f"{self.what}: ({', '.join(shown)})"


def usual(d: Draft) -> Form:
    """The form of the example: sizes, of which some are equal by chance and few are 1, and a choice of what is given."""
    sizes = {BATCH: d.rng.choice([6, 8]), TOKENS: d.rng.choice([6, 7]), DOCS: d.rng.choice([5, 6])}
    if d.rng.random() < 0.05:
        sizes[d.rng.choice(list(sizes))] = 1
    given = {a.name: d.rng.choice([*a.flags]) if a.flags else None for a in _free(d) if d.rng.random() < 0.5}
    form = Form(sizes, given, d.rng.random() < 0.3)
    return _givable(d, form)


def _free(d: Draft) -> list[Argument]:
    return [a for a in d.arguments if a.place != "required"]


def _givable(d: Draft, form: Form) -> Form:
    """A batch is a tuple or a dict: what is by name only and what is by position only do not go together."""
    places = {a.name: a.place for a in d.arguments}
    if any(places[n] == "more" for n in form.given):
        given = {n: v for n, v in form.given.items() if places[n] in ("more", "optional")}
        return replace(form, given=given, by_name=False)
    return form


def make(d: Draft, form: Form, generator: torch.Generator, what: str = SAME) -> Call:
    """A call of a form, with new values."""

    def value(a: Argument) -> Any:
        return form.given[a.name] if a.flags else drawn(a.value, form.sizes, generator, d.dtype)

    by_place: dict[str, dict[str, Any]] = {p: {} for p in ("required", "optional", "keyword", "more", "extra")}
    for a in d.arguments:
        if a.place == "required" or a.name in form.given:
            by_place[a.place][a.name] = value(a)
    named = {**by_place["keyword"], **by_place["extra"]}
    if by_place["more"]:  # everything before it is by position
        before = [value(a) if a.name in form.given else _default(a) for a in d.arguments if a.place == "optional"]
        return Call((*by_place["required"].values(), *before, *by_place["more"].values()), named, what)
    if form.by_name or named:
        return Call((), {**by_place["required"], **by_place["optional"], **named}, what)
    optional = [a.name for a in d.arguments if a.place == "optional"]
    leading = [n for i, n in enumerate(optional) if all(m in form.given for m in optional[: i + 1])]
    if len(leading) < len(by_place["optional"]):
        return Call((), {**by_place["required"], **by_place["optional"]}, what)
    return Call((*by_place["required"].values(), *by_place["optional"].values()), {}, what)


def unlike(d: Draft, form: Form, generator: torch.Generator) -> Iterator[Call]:
    """Calls that differ from a form in one respect: each axis alone, all of them, each flag, each argument, and a wrong size."""
    for axis in d.axes:
        for size in OTHERS[axis]:
            yield make(d, replace(form, sizes={**form.sizes, axis: size}), generator, SIZES)
    for i in range(2):
        yield make(d, replace(form, sizes={a: OTHERS[a][-1 - i] for a in OTHERS}), generator, SIZES)
    for a in _free(d):
        without = {n: v for n, v in form.given.items() if n != a.name}
        if a.name in form.given:
            yield make(d, replace(form, given=without), generator, LEFT_OUT)
        for v in a.flags:
            if form.given.get(a.name, ()) != v:
                yield make(d, replace(form, given={**without, a.name: v}), generator, FLAGS)
        if not a.flags and a.name not in form.given:
            yield make(d, replace(form, given={**without, a.name: None}), generator, LEFT_OUT)
    if form.given:
        yield make(d, replace(form, given={}, by_name=not form.by_name), generator, LEFT_OUT)
    yield from _wrong(d, form, generator)


def _wrong(d: Draft, form: Form, generator: torch.Generator) -> Iterator[Call]:
    """One input with a row too many, which most modules refuse; and one too few inputs."""
    call = make(d, replace(form, by_name=True), generator, RAISES)
    if call.args:
        return
    shared = [a.name for a in d.required if a.value.axes[0] == BATCH]
    if len(shared) > 1:
        last = call.kwargs[shared[-1]]
        yield replace(call, kwargs={**call.kwargs, shared[-1]: torch.cat([last, last[:1]])})
    yield replace(call, kwargs={k: v for k, v in call.kwargs.items() if k != d.required[-1].name})


def drawn(value: Any, sizes: Mapping[str, int], generator: torch.Generator, dtype: torch.dtype) -> Any:
    """Tensors for a slot, or a container of slots."""
    if isinstance(value, dict):
        return {k: drawn(v, sizes, generator, dtype) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(drawn(v, sizes, generator, dtype) for v in value)
    assert isinstance(value, Slot)
    shape = [sizes[a] if isinstance(a, str) else a for a in value.axes]
    if value.kind == "ids":
        return torch.randint(32, shape, generator=generator)
    if value.kind == "mask":
        return torch.rand(shape, generator=generator) < 0.7
    return torch.randn(shape, generator=generator).to(dtype)


def _default(a: Argument) -> Any:
    return a.flags[0] if a.flags else None


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)
