"""What sits on a module: submodules, hooks, replaced forwards, parametrizations, buffers, and attributes of other kinds."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.property.draft import WIDTH, Draft
from tests.property.features.base import Feature
from tests.property.kinds import Double

LINEAR = f"nn.Linear({WIDTH}, {WIDTH})"
ODD_NAMES = [
    "meta",
    "plan",
    "graph",
    "code",
    "front",
    "forward_",
    "forward_counted",
    "boxed",
    "tolerance",
    "routed",
    "form",
]

# Those that change what the model computes.
HOOKED = tuple(
    f"{what} {where}"
    for what in ("hook", "pre-hook", "forward replaced")
    for where in ("on the model", "on a submodule")
)


def changed(value: Any, factor: float = 1.5) -> Any:
    """An output with its floating tensors multiplied, in whatever form it has."""
    if isinstance(value, Tensor):
        return factor * value if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: changed(v, factor) for k, v in value.items()}
    if isinstance(value, list | tuple):
        inner = [changed(v, factor) for v in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(**{k: changed(v, factor) for k, v in vars(value).items()})
    return value


def _on(model: nn.Module, where: str) -> nn.Module:
    return model.get_submodule(where)


def _hooked(*places: str) -> Callable[[Draft], None]:
    def write(d: Draft) -> None:
        where = d.rng.choice(places)
        d.after.append(lambda m: _on(m, where).register_forward_hook(lambda _, args, out: changed(out)) and None)

    return write


def _doubled_first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first input that holds floats, doubled, however it is given."""
    if args and isinstance(args[0], Tensor):
        return (changed(args[0], 2.0), *args[1:]), kwargs
    name = next((k for k in ("x", "y", "docs") if k in kwargs), None)
    return args, kwargs if name is None else {**kwargs, name: 2.0 * kwargs[name]}


def _pre_hooked(*places: str) -> Callable[[Draft], None]:
    def write(d: Draft) -> None:
        where = d.rng.choice(places)
        d.after.append(lambda m: _on(m, where).register_forward_pre_hook(_doubled_first, with_kwargs=True) and None)

    return write


def _looked_at(d: Draft) -> None:
    where, before = d.rng.choice(["", "stem", "stem.0"]), d.rng.random() < 0.3

    def hang(model: nn.Module) -> None:
        seen: list[Any] = []
        if before:
            _on(model, where).register_forward_pre_hook(lambda m, args: seen.append(len(args)))
        else:
            _on(model, where).register_forward_hook(lambda m, args, out: seen.append(type(out)))

    d.after.append(hang)


def _replaced(*places: str) -> Callable[[Draft], None]:
    def write(d: Draft) -> None:
        where = d.rng.choice(places)

        def replace(model: nn.Module) -> None:
            module = _on(model, where)
            original = type(module).forward

            @functools.wraps(original)
            def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
                return changed(original(self, *args, **kwargs), 0.5)

            module.forward = types.MethodType(forward, module)

        d.after.append(replace)

    return write


def _parametrized(d: Draft) -> None:
    kind = d.rng.choice(["weight_norm", "spectral_norm", "double", "old spectral_norm"])

    def parametrize(model: nn.Module) -> None:
        linear = _on(model, "stem.0")
        if kind == "old spectral_norm":  # its first call replaces an attribute
            nn.utils.spectral_norm(linear)(torch.zeros(1, WIDTH, dtype=linear.weight.dtype))
        elif kind == "double":
            nn.utils.parametrize.register_parametrization(linear, "weight", Double())
        else:
            getattr(nn.utils.parametrizations, kind)(linear)

    d.after.append(parametrize)


def _buffer(d: Draft) -> None:
    d.init.append(f"self.register_buffer('offset', torch.randn({WIDTH}))")
    d.part("h = h + self.offset")


def _state(d: Draft) -> None:
    d.invalid.append("keeps state")
    d.init.append(f"self.register_buffer('mean', torch.zeros({WIDTH}))")
    update = d.rng.choice(
        [
            "self.mean.mul_(0.9).add_(0.1 * h.detach().reshape(-1, 16).mean(0))",
            "self.mean = self.mean + 1",
            "self.mean += h.detach().reshape(-1, 16).mean(0)",
            "self.mean.copy_(h.detach().reshape(-1, 16)[0])",
        ]
    )
    d.part(update, "h = h - 0.1 * self.mean")


def _odd_name(d: Draft) -> None:
    name = d.rng.choice(ODD_NAMES)
    d.init.append(f"self.{name} = {LINEAR}")
    d.part(f"h = h + torch.tanh(self.{name}(h))")


def _called_twice(d: Draft) -> None:
    layer = d.layer(LINEAR)
    d.part(f"h = h + torch.tanh({layer}(h))", f"h = h + torch.tanh({layer}(2 * h))")


def _tied(d: Draft) -> None:
    first, second = d.layer(LINEAR), d.layer(LINEAR)
    d.init.append(f"{second}.weight = {first}.weight")
    d.part(f"h = h + {second}(torch.relu({first}(h)))")


def _uncopyable(d: Draft) -> None:
    d.invalid.append("cannot be copied")
    d.init.append(d.rng.choice(["self.lock = threading.Lock()", "self.steps = (i for i in range(3))"]))


def _norms(d: Draft) -> None:
    layer = d.layer(d.rng.choice([f"nn.LayerNorm({WIDTH})", "nn.Dropout(0.5)"]), "norm")
    d.part(f"h = {layer}(h)")


FEATURES = (
    Feature("hook on the model", 0.07, _hooked("")),
    Feature("hook on a submodule", 0.07, _hooked("stem", "stem.0", "stem.1")),
    Feature("pre-hook on the model", 0.08, _pre_hooked(""), lambda d: not d.has("embedding of ids")),
    Feature("pre-hook on a submodule", 0.07, _pre_hooked("stem", "stem.0", "stem.2")),
    Feature("hook that looks", 0.07, _looked_at),
    Feature("forward replaced on the model", 0.07, _replaced("")),
    Feature("forward replaced on a submodule", 0.07, _replaced("stem", "stem.0")),
    Feature("parametrization", 0.08, _parametrized),
    Feature("buffer that is read", 0.08, _buffer),
    Feature("keeps state", 0.065, _state),
    Feature("odd name", 0.08, _odd_name),
    Feature("layer called twice", 0.08, _called_twice),
    Feature("tied weights", 0.08, _tied),
    Feature("layer norm or dropout", 0.1, _norms),
    Feature("cannot be copied", 0.065, _uncopyable),
)
