"""Capture: from an `nn.Module` to a graph module that computes the same function.

Two ways, in this order; what one cannot do, the next tries, and no graph is trusted before it has been run against the model.

    symbolic   torch.fx.symbolic_trace: plain models; works without example inputs
    export     torch.export, regrouped (`exported.py`): Hugging Face transformers, torch's own encoder layers

"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import fx, nn

from dendrofx.calling import CALL, CallForm
from dendrofx.capture.check import check_model, verify
from dendrofx.capture.exported import export
from dendrofx.capture.prepare import prepare
from dendrofx.capture.symbolic import Tracer, is_routed, symbolic_trace
from dendrofx.errors import CaptureError
from dendrofx.find_sites import LINEARS
from dendrofx.inputs import Inputs
from dendrofx.show import first_line

CAPTURE = "dendrofx.capture"
_DIFFERENCE = "dendrofx.difference"

__all__ = ["CAPTURE", "Captured", "Tracer", "capture", "is_routed"]


@dataclass(frozen=True)
class Captured:
    """How a module was captured.

    Attributes:
        way: "symbolic" or "export".
        difference: largest difference from the model in the runs that verified it, relative to the largest output.
        reason: why it is not zero.
        failed: why the ways before it were not taken.
    """

    way: str
    difference: float = 0.0
    reason: str = ""
    failed: tuple[str, ...] = ()

    def __str__(self) -> str:
        exact = "bit for bit" if self.difference == 0 else f"to {self.difference:.1e} ({self.reason})"
        return f"captured by {self.way}, equal to the model {exact}"


def capture(model: nn.Module, example: Inputs | None = None, shapes: bool = False) -> fx.GraphModule:
    """Trace a copy of `model`; the model itself is never touched.

    Args:
        model: in eval mode, on the CPU.
        example: inputs to capture with and to verify the graph on; without them only plain models can be captured, unverified.
        shapes: take the way that leaves symbolic shapes, which the row analysis reads.

    Returns:
        A graph module without gradients, with its own copy of the parameters; `meta[CAPTURE]` says how.

    Raises:
        InputError: training mode, or parameters that are not on the CPU.
        CaptureError: every way failed; each with the step and the input on which it did.
    """
    check_model(model)
    failed: list[str] = []
    opaque: fx.GraphModule | None = None
    for way in _ways(example, shapes):
        try:
            gm = _WAYS[way](model, example)
        except CaptureError as error:
            failed.append(f"{way}: {error}")
            continue
        if way == "symbolic" and example is not None and _hides_linears(gm):
            opaque = gm
            failed.append("symbolic: torch's own layers hide their Linears")
            continue
        return _finished(gm, model, way, failed)
    if opaque is not None:
        return _finished(opaque, model, "symbolic", failed)
    if example is None:
        failed.append("export: needs example inputs: pass example_inputs= or calibration=")
    raise CaptureError(f"cannot capture {type(model).__name__}.\n  " + "\n  ".join(failed))


def _ways(example: Inputs | None, shapes: bool) -> list[str]:
    if example is None:
        return ["symbolic"]
    return ["export"] if shapes else ["symbolic", "export"]


def _finished(gm: fx.GraphModule, model: nn.Module, way: str, failed: list[str]) -> fx.GraphModule:
    linears = {name or "0": type(m).__name__ for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    gm.meta[LINEARS] = linears  # a model that is one Linear became a chain of one
    difference, reason = gm.meta.pop(_DIFFERENCE, (0.0, ""))
    gm.meta[CAPTURE] = Captured(way, difference, reason, tuple(failed))
    return gm


def _symbolic(model: nn.Module, example: Inputs | None) -> fx.GraphModule:
    gm = symbolic_trace(copy.deepcopy(model).requires_grad_(False), model)
    if example is not None:
        gm.meta[_DIFFERENCE] = verify(model, lambda inputs: inputs.call(gm), example)
    return gm


def _exported(model: nn.Module, example: Inputs | None) -> fx.GraphModule:
    assert example is not None
    form = CallForm.of(model, example)
    own = copy.deepcopy(model).requires_grad_(False)
    changed = prepare(own)
    try:
        gm = export(own, form, example)
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError(f"torch.export failed on {example}: {first_line(error)}") from error
    gm.meta[CALL] = form
    gm.meta[_DIFFERENCE] = verify(
        model, lambda inputs: form.plain(inputs).call(gm), example, plain=True, changed=changed
    )
    return gm


_WAYS: dict[str, Callable[[nn.Module, Inputs | None], fx.GraphModule]] = {"symbolic": _symbolic, "export": _exported}


def _hides_linears(gm: fx.GraphModule) -> bool:
    """Whether a leaf module of the graph has Linears inside."""
    called = [gm.get_submodule(str(n.target)) for n in gm.graph.nodes if n.op == "call_module"]
    return any(not isinstance(m, nn.Linear) and any(isinstance(c, nn.Linear) for c in m.modules()) for m in called)
