"""Load what `save` wrote: the TorchScript module, with its plan, its certificate and what it was made with.

Nothing is unpickled but what `torch.jit.load` reads, which are the module's own tensors and constants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dendrofx.errors import CertificateError, PlanError
from dendrofx.graph.show import first_line
from dendrofx.guarantee.artifact import ABOUT_FILE, EXTRA, PLAN_FILE, certificate
from dendrofx.guarantee.certificate import Certificate
from dendrofx.plan import file
from dendrofx.plan.plan import Plan
from dendrofx.version import VERSION


class LoadedModule(nn.Module):
    """A saved module, called as it was.

    Attributes:
        plan: what became of every site; None in a file that holds none.
        certificate: checked against the file; None where none was asked for.
        about: versions it was made with, the model's class, and its inputs.
    """

    def __init__(
        self, scripted: torch.jit.ScriptModule, plan: Plan | None, shown: Certificate | None, about: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.scripted = scripted
        self.plan, self.certificate, self.about = plan, shown, dict(about)

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (what the model takes and gives)
        """Return the module's output, its tensors as the graph gives them."""
        return self.scripted(*args, **kwargs)

    def forward_counted(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return the output, and what was executed for it; see `RoutedModule`."""
        return self.scripted.forward_counted(*args, **kwargs)

    def __repr__(self) -> str:
        plan = "no plan" if self.plan is None else self.plan.summary()
        return f"<{self.about.get('model', 'module')} from a file: {plan}>"


def load(path: str | Path) -> LoadedModule:
    """Load a module that `save` wrote.

    Args:
        path: the file.

    Raises:
        PlanError: no such file, a truncated or foreign one, or one of another version.
        CertificateError: it holds a certificate, and was changed since.

    Example:
        >>> dendrofx.save(routed, "model.pt")
        >>> dendrofx.load("model.pt").plan.summary()
    """
    extra = dict.fromkeys((ABOUT_FILE, PLAN_FILE, EXTRA), "")
    try:
        scripted = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    except (OSError, RuntimeError, ValueError) as error:
        raise PlanError(
            f"cannot load {path}: it is missing, damaged or no saved module: {first_line(error)}"
        ) from error
    about = _read(extra[ABOUT_FILE], path)
    if (there := about.get("dendrofx")) != VERSION:
        made = "without dendrofx.save" if there is None else f"by dendrofx {there}; this is {VERSION}"
        raise PlanError(f"{path} was written {made}: torch.jit.load runs it, its plan cannot be read here")
    plan = file.from_json(Plan, _read(extra[PLAN_FILE], path)) if extra[PLAN_FILE] else None
    shown = certificate(path) if extra[EXTRA] else None
    if shown is None and plan is not None and plan.certificate is not None:
        raise CertificateError(f"{path}: its plan was certified, and the certificate is gone: write it again")
    return LoadedModule(scripted.eval(), plan, shown, about)


def _read(text: str | bytes, path: str | Path) -> Mapping[str, Any]:
    """Return an extra file's mapping; empty where there is none."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is damaged: {error}") from error
    if not isinstance(value, Mapping):
        raise PlanError(f"{path} is damaged: a description is a {type(value).__name__}")
    return value
