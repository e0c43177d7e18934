"""Lowering to TorchScript: the only file that touches `torch.jit.script` and `freeze`, and with `lowering/isolate.py` `save`.

Quarantined because TorchScript is deprecated (torch 2.11 and later) and has traps: scripting a graph module a second time
returns the *old* code, and after one failure every later attempt fails too. So a fresh graph module is scripted every time.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

import torch
from torch import fx, nn

from dendrofx.lowering.fitted import MARK, guard, is_fitted, mark
from dendrofx.lowering.isolate import freezable, isolate
from dendrofx.lowering.operators import check_graphs, check_operators
from dendrofx.lowering.spelled import spell_out
from dendrofx.values.guards import add_guards
from dendrofx.values.meta import CALL

Key = TypeVar("Key")


def script(module: nn.Module, *, freeze: bool = False) -> torch.jit.ScriptModule:
    """Lower a module to TorchScript, for CPUs.

    Args:
        module: what `transform` returned, or any scriptable module (a baseline gets the same treatment).
        freeze: inline weights and constants: a little faster, but tolerances can no longer be set. A frozen module keeps
            `forward_counted`, and shares its parameters with the module, as a scripted one does.

    Returns:
        A script module without gradients. `torch.jit.save` writes it; loading needs torch and nothing else. Of a routed module,
        `load_state_dict` takes its own weights alone, also after loading: what was fitted to them would not follow others.

    Raises:
        InputError: the module calls operators that plain torch does not have; names them and their nodes.

    Example:
        >>> scripted = dendrofx.script(routed)
        >>> torch.jit.save(scripted, "model.pt")
    """
    check_graphs(module)
    made = lowered(module, freeze=freeze, marked=not freeze and _counts(module) and is_fitted(module))
    check_operators(made)
    return guard(made) if MARK in dict(made.named_buffers(recurse=False)) else made


def lowered(module: nn.Module, *, freeze: bool = False, marked: bool = False) -> torch.jit.ScriptModule:
    """Lower a module to run here and now, whatever operators it calls.

    Args:
        module: see `script`.
        freeze: see `script`.
        marked: it carries the fingerprint of its weights, see `lowering/fitted.py`.
    """
    fresh = _fresh(module, marked)
    with _known_warnings_silenced():
        scripted = torch.jit.script(freezable(fresh) if freeze else fresh)
        return _freeze(isolate(scripted)) if freeze else scripted


def frozen_each(
    module: nn.Module, change: Callable[[nn.Module, Key], object], keys: Iterable[Key]
) -> dict[Key, torch.jit.ScriptModule]:
    """Script a module once, and freeze it after each change to its buffers: most of lowering is scripting.

    Args:
        module: see `script`; it stays as it is.
        change: sets a script module's buffers as a key says.
        keys: one for each frozen module.
    """
    check_graphs(module)
    made = {}
    with _known_warnings_silenced():
        scripted = torch.jit.script(freezable(_fresh(module)))
        check_operators(scripted)
        for key in keys:
            own = isolate(scripted)
            change(own, key)
            made[key] = _freeze(own)
    return made


def frozen(loaded: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Freeze a module that was read from a file, which has a compilation unit of its own; one that is frozen stays so."""
    with _known_warnings_silenced():
        return _freeze(loaded)


def _fresh(module: nn.Module, marked: bool = False) -> nn.Module:
    """Return a graph module that was never scripted, with the same parts; of other modules themselves."""
    fresh = module
    if isinstance(module, fx.GraphModule):
        kind = type(module).__bases__[0]  # FX makes every graph module a class of its own
        fresh = kind(module, _guarded(module))
        _hide_graph(type(fresh))
        fresh.training = module.training
        if marked:
            fresh.register_buffer(MARK, mark(module))
    spell_out(fresh)
    return fresh


def _hide_graph(kind: type[nn.Module]) -> None:
    """Keep TorchScript from what it does in vain, more than half of what scripting a small module takes (torch 2.13).

    It would compile the class of an attribute, `fx.Graph`, and fail; and parse the constructor of `fx.GraphModule`.

    Args:
        kind: a class that one graph module has to itself.
    """
    kind.__jit_ignored_attributes__ = ["_graph"]  # type: ignore[attr-defined]
    kind.__init__ = _nothing  # type: ignore[method-assign]


def _nothing(self: nn.Module) -> None: ...


def _freeze(isolated: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Freeze a script module that has a compilation unit of its own."""
    kept = ["forward_counted"] if isolated._c._has_method("forward_counted") else []
    return cast(torch.jit.ScriptModule, torch.jit.freeze(isolated.eval(), preserved_attrs=kept))


def _counts(module: nn.Module) -> bool:
    """Return whether a module says what it executed, as routed ones do."""
    return isinstance(module, fx.GraphModule) and hasattr(module, "forward_counted")


def _guarded(gm: fx.GraphModule) -> fx.Graph:
    """Copy a module's graph, with checks of the sizes it was captured for."""
    graph, form = copy.deepcopy(gm.graph), gm.meta.get(CALL)
    if form is not None and form.guards:
        add_guards(graph, form.model, form.guards)
    return graph


def script_bytes(scripted: torch.jit.ScriptModule, extra: Mapping[str, str] | None = None) -> bytes:
    """Return the file of a script module, with extra files by name; torch's own writer ends the process where a disk is full."""
    with _known_warnings_silenced():
        made: bytes = scripted.save_to_buffer(_extra_files=dict(extra or {}))
    return made


def artifact_bytes(scripted: torch.jit.ScriptModule) -> int:
    """Return the size of the saved file, in bytes."""
    return len(script_bytes(scripted))


class _known_warnings_silenced(warnings.catch_warnings):
    """Two warnings that no user can act on.

    TorchScript's deprecation: users of `dendrofx.script` chose it, and it has no replacement here yet. And a remark on an
    annotation in the constructor of torch's own `fx.GraphModule`, which scripting does not run: that of a part of a module.
    """

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The TorchScript type system doesn't support", category=UserWarning)
