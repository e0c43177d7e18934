"""Lowering to TorchScript: the only file that touches `torch.jit.script`, `save` and `freeze`.

Quarantined because TorchScript is deprecated (torch 2.11 and later) and has traps: scripting a graph module a second time
returns the *old* code, and after one failure every later attempt fails too. So a fresh graph module is scripted every time.
"""

from __future__ import annotations

import copy
import io
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, fx, nn

from dendrofx.module import RoutedModule


def script(module: nn.Module, *, freeze: bool = False) -> torch.jit.ScriptModule:
    """The TorchScript form of a module, for CPUs.

    Args:
        module: what `transform` returned, or any scriptable module (a baseline gets the same treatment).
        freeze: inline weights and constants: a little faster, but tolerances can no longer be set. A frozen module keeps
            `forward_counted`, and shares its parameters with the module, as a scripted one does.

    Returns:
        A script module without gradients. `torch.jit.save` writes it; loading needs torch and nothing else.

    Example:
        >>> scripted = dendrofx.script(routed)
        >>> torch.jit.save(scripted, "model.pt")
    """
    fresh = module
    if isinstance(module, fx.GraphModule):
        kind = RoutedModule if isinstance(module, RoutedModule) else fx.GraphModule
        fresh = kind(module, copy.deepcopy(module.graph))
        fresh.training = module.training
    with _known_warnings_silenced():
        scripted = torch.jit.script(fresh)
        if freeze:
            kept = ["forward_counted"] if isinstance(module, RoutedModule) else []
            scripted = torch.jit.freeze(_apart(scripted).eval(), preserved_attrs=kept)
    return cast(torch.jit.ScriptModule, scripted)


def _apart(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The same module in a compilation unit of its own. Its parameters move there uncopied; `scripted` is used up.

    `torch.jit.freeze` registers what it makes with the module's compilation unit. That of everything scripted from Python never
    ends, and with it never the frozen weights (torch 2.13): a process that tunes would keep every candidate that it timed.
    """
    parameters = _movable(scripted)
    _put({name: value.new_empty(0) for name, value in parameters.items()}, scripted)
    with tempfile.TemporaryDirectory(
        prefix="dendrofx"
    ) as folder:  # a buffer in memory would hold what is written four times
        path = str(Path(folder) / "apart.pt")
        torch.jit.save(scripted, path)
        apart: torch.jit.ScriptModule = torch.jit.load(path)
    _put(parameters, apart)
    return apart


def _movable(scripted: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """Parameters by name, without those of modules that write themselves to a file: these must stay whole."""
    modules = scripted.named_modules(remove_duplicate=False)
    writers = tuple(f"{name}." if name else "" for name, m in modules if m._c._has_method("__getstate__"))
    named = scripted.named_parameters(remove_duplicate=False)
    return {name: p.detach() for name, p in named if not name.startswith(writers)}


def _put(parameters: Mapping[str, Tensor], scripted: torch.jit.ScriptModule) -> None:
    modules = dict(scripted.named_modules(remove_duplicate=False))
    for name, value in parameters.items():
        path, _, last = name.rpartition(".")
        modules[path]._parameters[last] = value  # TorchScript takes any tensor


def save_script(scripted: torch.jit.ScriptModule, path: Path, extra: Mapping[str, str]) -> None:
    """Write a script module, and extra files by name."""
    with _known_warnings_silenced():
        torch.jit.save(scripted, str(path), _extra_files=dict(extra))


def artifact_bytes(scripted: torch.jit.ScriptModule) -> int:
    """Size of the saved file, in bytes."""
    buffer = io.BytesIO()
    with _known_warnings_silenced():
        torch.jit.save(scripted, buffer)
    return buffer.tell()


class _known_warnings_silenced(warnings.catch_warnings):
    """Two warnings that no user can act on.

    TorchScript's deprecation: users of `dendrofx.script` chose it, and it has no replacement here yet. And a remark on an
    annotation in the constructor of torch's own `fx.GraphModule`, which scripting does not run.
    """

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The TorchScript type system doesn't support", category=UserWarning)
