"""Isolate a script module: a compilation unit of its own, its weights uncopied. That is what `torch.jit.freeze` should be given.

`torch.jit.freeze` registers what it makes with the module's compilation unit. That of everything scripted from Python never ends,
and with it never the frozen weights (torch 2.13): a process that tunes would keep every candidate that it timed. A module that is
saved and loaded has a unit that ends with it. So it is, but for its weights, which take the place of small ones afterwards.

Modules that lay out their weights on load (`PackedLinear`, `FusedInt8Linear`) would do so again there, and once more in freezing,
which writes and reads them in memory. `freezable` gives them a class that does neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from dendrofx.machine.files import scratch
from dendrofx.runtime.fbgemm import pack
from dendrofx.runtime.fused_int8 import BareFusedInt8Linear, FusedInt8Linear
from dendrofx.runtime.packed import BarePackedLinear, PackedLinear

LARGE = 2**16  # numbers in a buffer
Module = TypeVar("Module", bound=nn.Module)
_FREEZABLE: dict[type[nn.Module], type[nn.Module]] = {
    PackedLinear: BarePackedLinear,
    FusedInt8Linear: BareFusedInt8Linear,
}
# Of these, by the name that TorchScript gives the class, what holds weights.
_WEIGHTS = {
    f"__torch__.{kind.__module__}.{kind.__qualname__}": ("packed", weight)
    for kind, weight in ((BarePackedLinear, "plain"), (BareFusedInt8Linear, "weight"))
}


def freezable(module: Module) -> Module:
    """Return a module with the same weights and freezable classes: what holds these is new, every other part the same."""
    if (kind := _FREEZABLE.get(type(module))) is not None:
        return cast(Module, twin(module, kind))
    children = {name: child if child is None else freezable(child) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    made = cast(Module, twin(module, type(module)))
    made.__dict__["_modules"] = children
    return made


def twin(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Return another object with the same attributes."""
    made = object.__new__(kind)  # a graph module's own __new__ would make a class without its forward
    made.__dict__.update(module.__dict__)
    return made


def isolate(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Return a copy of a script module with a compilation unit of its own and the same weights."""
    weights = {**_parameters(scripted), **_layouts(scripted)}
    _put({name: _small(value) for name, value in weights.items()}, scripted)
    try:
        # a buffer in memory would hold what is written four times
        with scratch() as path:
            torch.jit.save(scripted, path)
            made: torch.jit.ScriptModule = torch.jit.load(path)
    finally:
        _put(weights, scripted)
    _put(weights, made)
    return made


def _parameters(scripted: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """Return parameters and large buffers (8-bit weights) by name; modules that write themselves to a file keep theirs."""
    modules = scripted.named_modules(remove_duplicate=False)
    writers = tuple(f"{name}." if name else "" for name, m in modules if m._c._has_method("__getstate__"))
    named = [*scripted.named_parameters(remove_duplicate=False), *scripted.named_buffers(remove_duplicate=False)]
    large = ((name, p) for name, p in named if isinstance(p, nn.Parameter) or p.numel() >= LARGE)
    return {name: p.detach() for name, p in large if not name.startswith(writers)}


def _layouts(scripted: torch.jit.ScriptModule) -> dict[str, Tensor | torch.ScriptObject]:
    """Return the weights of freezable modules, by name."""
    found = {}
    for name, module in scripted.named_modules(remove_duplicate=False):
        kind = re.sub(r"___torch_mangle_\d+\.", "", module._c._type().qualified_name())
        found.update({f"{name}.{a}": module._c.getattr(a) for a in _WEIGHTS.get(kind, ())})
    return found


def _small(weight: Tensor | torch.ScriptObject) -> Tensor | torch.ScriptObject:
    """Return what can be saved in place of a weight."""
    if isinstance(weight, Tensor):
        return torch.empty(0, dtype=weight.dtype)
    return pack(torch.ones(1, 1, dtype=torch.int8), torch.ones(1))


def _put(weights: Mapping[str, Tensor | torch.ScriptObject], scripted: torch.jit.ScriptModule) -> None:
    modules = dict(scripted.named_modules(remove_duplicate=False))
    for name, value in weights.items():
        path, _, last = name.rpartition(".")
        modules[path]._c.setattr(last, value)
