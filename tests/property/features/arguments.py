"""Arguments that a call may leave out, flags, and tensors inside containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.property.draft import BATCH, TOKENS, WIDTH, Argument, Draft, Slot
from tests.property.features.base import Feature


def _place(d: Draft) -> str:
    """Where an argument with a default stands; what is by keyword only is a feature too."""
    if d.has("by keyword only") and d.rng.random() < 0.7:
        return "keyword"
    return "optional"


def _optional_mask(d: Draft) -> None:
    axes = (BATCH, TOKENS) if d.tokens else (BATCH,)
    d.arguments.append(Argument("keep", Slot(axes, "mask"), _place(d), "None"))
    d.part("if keep is not None:", "    h = h.masked_fill(~keep[..., None], 0.1)")


def _optional_weight(d: Draft) -> None:
    d.arguments.append(Argument("weight", Slot((BATCH, WIDTH)), _place(d), "None"))
    d.part(f"h = h if weight is None else h * {d.rows('weight', 2)}")


def _optional_bias(d: Draft) -> None:
    d.arguments.append(Argument("bias", Slot((WIDTH,)), _place(d), "None"))
    d.part("if bias is None:", "    bias = h.new_full((16,), 0.5)", "h = h + bias")


def _flag(name: str, values: tuple[Any, ...], *lines: str) -> Callable[[Draft], None]:
    def write(d: Draft) -> None:
        d.arguments.append(Argument(name, None, _place(d), repr(values[0]), values))
        d.part(*lines)

    return write


def _more(d: Draft) -> None:
    d.arguments.append(Argument("more", Slot((BATCH, WIDTH)), "more"))
    d.part("for one in more:", f"    h = h + {d.rows('one', 2)}")


def _extra(d: Draft) -> None:
    d.arguments += [Argument(n, Slot((BATCH, WIDTH)), "extra") for n in ("gain", "offset")]
    gain, offset = d.rows("extra['gain']", 2), d.rows("extra.get('offset', h.new_ones(1, 16))", 2)
    d.part("if 'gain' in extra:", f"    h = h * {gain}")
    d.part(f"h = h + {offset}")


def _container(d: Draft) -> None:
    """A dict, a nested dict, a tuple or a list of tensors."""
    a, b = Slot((BATCH, WIDTH)), Slot((BATCH, WIDTH))
    kind, value, first, second = d.rng.choice(
        [
            ("dict", {"a": a, "b": b}, "obs['a']", "obs['b']"),
            ("nested dict", {"a": a, "inner": {"b": b}}, "obs['a']", "obs['inner']['b']"),
            ("tuple", (a, b), "obs[0]", "obs[1]"),
            ("list", [a, b], "obs[0]", "obs[-1]"),
        ]
    )
    d.features.append(f"argument that is a {kind}")
    d.arguments.append(Argument("obs", value))
    read = f"({d.layer(f'nn.Linear({WIDTH}, {WIDTH})')}({first}) * {second})"
    d.part(f"h = h + {d.rows(read, 2)}")


FEATURES = (
    Feature("by keyword only", 0.25, lambda _: None),  # of the arguments that follow
    Feature("optional mask", 0.09, _optional_mask),
    Feature("optional weight", 0.09, _optional_weight),
    Feature("optional bias", 0.09, _optional_bias),
    Feature("flag, bool", 0.11, _flag("double", (False, True), "if double:", "    h = 2 * h")),
    Feature("flag, int", 0.11, _flag("times", (1, 3, 0), "for _ in range(times):", "    h = h + torch.tanh(h)")),
    Feature("flag, str", 0.11, _flag("act", ("tanh", "relu", "sigmoid"), "h = h + getattr(torch, act)(h)")),
    Feature("flag, float", 0.11, _flag("scale", (1.0, 0.5, 3.0), "h = h * scale")),
    Feature("*args", 0.075, _more),
    Feature("**kwargs", 0.075, _extra),
    Feature("container of tensors", 0.27, _container),
)
