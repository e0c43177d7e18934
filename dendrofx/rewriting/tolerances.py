"""Read and write the tolerances of a routed module, by site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

import torch
from torch import nn

from dendrofx.errors import InputError


def tolerances(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tolerance buffers of a routed module by site, as the plan names it; write to them with `.fill_(value)`.

    Args:
        module: eager, scripted, or loaded from a file of TorchScript. A frozen module has none: set them before freezing.

    Raises:
        InputError: it is no module, or from a file of another format.

    Example:
        >>> dendrofx.tolerances(torch.jit.load("model.pt"))
        {'fc1..fc2': tensor(0.0420)}
    """
    return {site: buffer for _, site, buffer in _tolerances(module)}


def set_tolerances(module: nn.Module, values: Mapping[str, float]) -> None:
    """Write tolerances by site, as the plan names it; unnamed sites keep theirs. All of them are written, or none.

    Args:
        module: eager, scripted, or loaded from a file.
        values: at least 0; 0 sends every row to the full branch, infinity every row that can be judged to the light one.

    Raises:
        InputError: a value that is no tolerance, or a site that the module does not have.

    Example:
        >>> dendrofx.set_tolerances(routed, {"fc1..fc2": 0.05})
        >>> dendrofx.set_tolerances(routed, dict.fromkeys(dendrofx.tolerances(routed), 0.0))
    """
    sites = {site: buffer for _, site, buffer in _tolerances(module)}
    inside = {name: buffer for name, _, buffer in _tolerances(module)}
    if not isinstance(values, Mapping):
        raise InputError(
            f"tolerances are set by site, got {values!r}: pass {{site: value}}, or for all of them"
            f" dict.fromkeys(dendrofx.tolerances(module), {values if isinstance(values, int | float) else 0.05})"
        )
    written = []
    for name, value in values.items():
        if name not in sites and name not in inside:
            has = ", ".join(sites) or "none: nothing is routed, or it is frozen"
            raise InputError(f"the module has no site {name!r}; it has {has}")
        written.append(({**inside, **sites}[name], _tolerance(name, value)))
    with torch.inference_mode():  # where alone a module that was made, copied or loaded in it can be written to
        for buffer, number in written:
            buffer.fill_(number)


def _tolerance(name: str, value: object) -> float:
    """Check a tolerance, and return one that float32 holds."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not number >= 0:
        raise InputError(
            f"the tolerance of {name!r} must be a number of at least 0, got {value!r}; 0.05 is five percent"
        )
    return number if math.isinf(number) else min(number, torch.finfo(torch.float32).max)


def _tolerances(module: nn.Module) -> list[tuple[str, str, torch.Tensor]]:
    """Return `(name inside the module, name in the plan, buffer)` of every routed site."""
    if not isinstance(module, nn.Module):
        raise InputError(f"tolerances are those of a module that transform returned, or of its script, got {module!r}")
    found = []
    module = _run_by(module)
    for name, buffer in module.named_buffers():
        parts = name.split(".")
        if parts[0] == "routed" and parts[2:] == ["tolerance"]:
            site = getattr(module.routed, parts[1])
            leaf = getattr(site, "full", None) or getattr(site, "light", None)  # which keeps the name, scripted too
            found.append((parts[1], str(getattr(leaf, "site", "") or parts[1]), buffer))
    return found


def _run_by(module: nn.Module) -> nn.Module:
    """Return what holds the tolerances: of a module that `dendrofx.load` returned its script.

    Raises:
        InputError: its file is of another format, in which they are constants.
    """
    if isinstance(module, torch.jit.ScriptModule) or "routed" in module._modules:
        return module
    run = vars(module).get("scripted", module._modules.get("scripted"))
    if run is None:
        return module
    if isinstance(run, torch.jit.ScriptModule):
        return run
    raise InputError(
        "the module is from a file of another format than TorchScript, in which tolerances are constants: set them on what"
        " transform returned, and save again"
    )
