"""A random module: a draft that features write into, and the module made from its source.

A module has a value `h`, float[batch, 16] or float[batch, tokens, 16], made from its first input, which features read and change in
lines of plain Python. What a draft holds is text, so a module that fails is printed as a person would have written it.
"""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.property.kinds import NAMESPACE

WIDTH = 16
BATCH, TOKENS, DOCS = "batch", "tokens", "docs"  # axes whose sizes a call may choose


@dataclass(frozen=True)
class Slot:
    """One tensor of a call.

    Attributes:
        axes: each a name, of which a call says the size, or a fixed size.
        kind: "float", "ids" below 32, or "mask", bool.
    """

    axes: tuple[str | int, ...]
    kind: str = "float"


@dataclass(frozen=True)
class Argument:
    """One parameter of `forward`.

    Attributes:
        value: a slot, a tuple, list or dict of such, or None for a flag.
        place: "required", "optional", "keyword", or of the tensors that `*more` and `**extra` take, "more" and "extra".
        default: its source; empty without one.
        flags: every value that a flag is tried with, its default first.
    """

    name: str
    value: Any = None
    place: str = "required"
    default: str = ""
    flags: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        """As the signature has it."""
        return f"{self.name}={self.default}" if self.default else self.name


@dataclass
class Draft:
    """A module that is being written.

    Attributes:
        number: the seed of all that is drawn.
        features: names of those that it has.
        arguments: of its forward.
        init, prologue, parts, outputs: lines of its constructor, the making of `h`, the changes of `h`, and the output's
            leaves by name.
        after: changes of the built instance: hooks, parametrizations.
        invalid: why it is no model that must be accepted.
    """

    number: int
    rng: random.Random = field(init=False)
    features: list[str] = field(default_factory=list)
    arguments: list[Argument] = field(default_factory=list)
    init: list[str] = field(default_factory=list)
    prologue: list[str] = field(default_factory=list)
    parts: list[list[str]] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=lambda: {"y": "h"})
    form: str = "tensor"
    after: list[Callable[[nn.Module], None]] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    dtype: torch.dtype = torch.float32
    names: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.number)

    @property
    def tokens(self) -> bool:
        """Whether `h` has an axis of tokens."""
        return any(TOKENS in a.value.axes for a in self.required)

    @property
    def required(self) -> list[Argument]:
        """The plain tensors that every call gives."""
        return [a for a in self.arguments if a.place == "required" and isinstance(a.value, Slot)]

    @property
    def axes(self) -> tuple[str, ...]:
        """The named axes of all the tensors that every call gives."""
        found = [axis for a in self.required for axis in a.value.axes if isinstance(axis, str)]
        return tuple(dict.fromkeys(found))

    def sized(self) -> tuple[str, int]:
        """A required tensor and one of its named axes, as it occurs in the source."""
        return self.rng.choice(
            [(a.name, i) for a in self.required for i, axis in enumerate(a.value.axes) if isinstance(axis, str)]
        )

    def name(self, stem: str) -> str:
        """A name that nothing else has."""
        self.names += 1
        return f"{stem}{self.names}"

    def layer(self, source: str, stem: str = "fc") -> str:
        """A new submodule; how the source calls it."""
        name = self.name(stem)
        self.init.append(f"self.{name} = {source}")
        return f"self.{name}"

    def part(self, *lines: str) -> None:
        """A change of `h`."""
        self.parts.append(list(lines))

    def rows(self, name: str, axes: int = 1) -> str:
        """A tensor [batch, ...] with `axes` axes, so that it broadcasts against `h`."""
        return f"{name}[:, None]" if self.tokens and axes == 2 else name

    def has(self, *features: str) -> bool:
        """Whether one of some features is there."""
        return any(f in self.features for f in features)

    def source(self) -> str:
        """The class."""
        body = [*self.prologue, *(line for part in self.parts for line in part), f"return {self.returned()}"]
        lines = ["class Model(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        {line}" for line in self.init]
        lines += [f"    def forward({self.signature()}):"]
        return "\n".join([*lines, *(f"        {line}" for line in body), ""])

    def signature(self) -> str:
        """Of its forward."""
        by_place = {p: [a for a in self.arguments if a.place == p] for p in ("required", "optional", "keyword")}
        more, extra = (any(a.place == p for a in self.arguments) for p in ("more", "extra"))
        star = ["*more"] if more else ["*"] if by_place["keyword"] else []
        texts = [[a.text for a in found] for found in by_place.values()]
        return ", ".join(["self", *texts[0], *texts[1], *star, *texts[2], *(["**extra"] if extra else [])])

    def returned(self) -> str:
        """The output, in its form."""
        leaves = self.outputs
        values = ", ".join(leaves.values())
        named = ", ".join(f"{k}={v}" for k, v in leaves.items())
        as_dict = "{" + ", ".join(f"{k!r}: {v}" for k, v in leaves.items()) + "}"
        rest = ", ".join([*list(leaves.values())[1:], ""])
        forms = {
            "tensor": "h",
            "tuple": f"({values},)",
            "list": f"[{values}]",
            "dict": as_dict,
            "dataclass": f"Encoded({named})",
            "namedtuple": f"Pair({named})",
            "nested": f"{{'head': ({leaves['y']},), 'rest': [{rest.rstrip(', ')}]}}",
        }
        return forms[self.form]

    @property
    def main(self) -> str:
        """The path of the output that every model has, one row per sample."""
        return {"tensor": "output", "tuple": "0", "list": "0", "nested": "head.0"}.get(self.form, "y")

    def build(self) -> nn.Module:
        """The module, in eval mode; the same weights each time."""
        source, file = self.source(), f"<random module {self.number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        space = dict(NAMESPACE)
        exec(compile(source, file, "exec"), space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.number)
            model: nn.Module = space["Model"]().eval().to(self.dtype)
            with torch.no_grad():
                for change in self.after:
                    change(model)
        return model.eval()
