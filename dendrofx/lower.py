"""Lowering to TorchScript: the only file that touches `torch.jit.script` and `freeze`, and with `apart.py` `save`.

Quarantined because TorchScript is deprecated (torch 2.11 and later) and has traps: scripting a graph module a second time
returns the *old* code, and after one failure every later attempt fails too. So a fresh graph module is scripted every time.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import fx, nn

from dendrofx.apart import apart, bare
from dendrofx.module import RoutedModule
from dendrofx.spelled import spell_out


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
    spell_out(fresh)
    with _known_warnings_silenced():
        scripted = torch.jit.script(bare(fresh) if freeze else fresh)
        if freeze:
            kept = ["forward_counted"] if isinstance(module, RoutedModule) else []
            scripted = torch.jit.freeze(apart(scripted).eval(), preserved_attrs=kept)
    return cast(torch.jit.ScriptModule, scripted)


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
