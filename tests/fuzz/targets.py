"""What hostile calls are made of: small transformed modules and their scripts, each with its original."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import dendrofx
from tests.made import Made, loaded, made, set_all

KINDS = ("mlp", "residual", "cascade", "padded", "no-gate")
# The most that any row's output may deviate by, where several sites are routed, and no two answers are the only right ones.
MOST_APART = 0.5
BEYOND = 4.0  # times as long as the longest row that a gate was fitted to, or as short: it must not judge those


@dataclass(frozen=True)
class Target:
    """Something to call.

    Attributes:
        name: such as "mlp, frozen".
        names: of its inputs.
        original: the model.
        called: the transformed module, or its script.
        light: the same with every row light that may be; of several sites None.
        no_full: it has no full branch, and refuses rows that are not finite.
        norms: of rows, the least and the most that its gate may judge; None where a norm says nothing.
        probe: a batch, and what `called` makes of it before anything hostile.
    """

    name: str
    names: tuple[str, ...]
    original: nn.Module
    called: nn.Module
    light: nn.Module | None
    no_full: bool
    norms: tuple[float, float] | None
    probe: tuple[Tensor, ...]
    answer: Tensor

    def is_as_before(self) -> bool:
        """Whether it still answers as it did."""
        with torch.no_grad():
            return torch.equal(self.called(*(p.clone() for p in self.probe)), self.answer)


@cache
def targets() -> tuple[Target, ...]:
    """All of them; made once a process."""
    return tuple(target for kind in KINDS for target in _of(kind))


def names() -> tuple[tuple[str, ...], ...]:
    """The names of the inputs of each target."""
    return tuple(t.names for t in targets())


def _of(kind: str) -> Sequence[Target]:
    source = made(kind)
    script = torch.jit.freeze(loaded(dendrofx.script(source.module)).eval())
    return [_target(kind, "eager", source, source.module), _target(kind, "frozen", source, script)]


def _target(kind: str, form: str, source: Made, called: nn.Module) -> Target:
    probe = tuple(source.rows.values()) if isinstance(source.rows, dict) else (source.rows,)
    placeholders = [str(n.target) for n in source.module.graph.nodes if n.op == "placeholder"]
    light = copy.deepcopy(source.module) if len(dendrofx.tolerances(source.module)) == 1 else None
    if light is not None:
        set_all(light, torch.inf)
    with torch.no_grad():
        answer = called(*probe)
    return Target(
        f"{kind}, {form}",
        tuple(placeholders),
        source.model,
        called,
        light,
        kind == "no-gate",
        _norms(source) if kind == "mlp" else None,
        probe,
        answer,
    )


def _norms(source: Made) -> tuple[float, float]:
    """Far from those of all rows that a gate was fitted to."""
    batches: Any = source.options["calibration"]
    seen = torch.cat([b.norm(dim=1) for b in batches])
    return float(seen.min()) / BEYOND, float(seen.max()) * BEYOND
