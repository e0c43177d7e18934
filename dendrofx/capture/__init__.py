"""Capture: from an `nn.Module` to a graph module that computes the same function.

Three ways, in this order; what one cannot do, the next tries, and no graph is trusted before it has been run against the model.

    symbolic   torch.fx.symbolic_trace: plain models; works without example inputs
    export     torch.export, regrouped (`exported.py`): Hugging Face transformers, torch's own encoder layers
    trace      torch.jit.trace, read back (`traced.py`): models that turn tensors into Python values
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from torch import fx, nn

from dendrofx.calling import CALL, CallForm
from dendrofx.capture.boxed import Run, place_of
from dendrofx.capture.check import DiffersError, Twin, check_model, verify
from dendrofx.capture.exported import export
from dendrofx.capture.prepare import copy_of, prepare
from dendrofx.capture.symbolic import Tracer, is_routed, refuse_unscriptable, symbolic_trace
from dendrofx.capture.traced import trace
from dendrofx.capture.variants import variants
from dendrofx.errors import CaptureError, InputError
from dendrofx.find_sites import LINEARS
from dendrofx.inputs import Inputs
from dendrofx.memory import part
from dendrofx.show import first_line

CAPTURE = "dendrofx.capture"
_FUSED = "torch's fused encoder layers sum in another order"
_GRADIENTS = "torch sums products of strided rows in another order where weights need no gradient"

__all__ = ["CAPTURE", "Captured", "Tracer", "capture", "is_routed"]


@dataclass(frozen=True)
class Captured:
    """How a module was captured.

    Attributes:
        way: "symbolic", "export" or "trace".
        difference: largest difference from the model in the runs that verified it, relative to the largest output.
        reason: why it is not zero.
        failed: why the ways before it were not taken.
        fixed: lines of the model that turn a tensor into a Python value, which a trace fixes. The graph agreed with the model
            in every run that verified it, other values of the inputs included.
    """

    way: str
    difference: float = 0.0
    reason: str = ""
    failed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    def __str__(self) -> str:
        exact = "bit for bit" if self.difference == 0 else f"to {self.difference:.1e} ({self.reason})"
        fixed = f"; fixed as on the example: {', '.join(self.fixed)}" if self.fixed else ""
        return f"captured by {self.way}, equal to the model {exact}{fixed}"


def capture(
    model: nn.Module,
    example: Inputs | None = None,
    shapes: bool = False,
    others: Sequence[Inputs] = (),
    shared: bool = False,
) -> fx.GraphModule:
    """Trace a copy of `model`; the model itself is never touched.

    Args:
        model: in eval mode, on the CPU.
        example: inputs to capture with and to verify the graph on; without them only plain models can be captured, unverified.
        shapes: take the way that leaves symbolic shapes, which the row analysis reads.
        others: more inputs, such as calibration batches, to verify a trace on, which fixes values.
        shared: leave the parameters in the model's memory; `memory.part` gives the result its own.

    Returns:
        A graph module without gradients, with its own copy of the parameters; `meta[CAPTURE]` says how.

    Raises:
        InputError: training mode, or parameters that are not on the CPU.
        CaptureError: every way failed; each with the step and the input on which it did.

    Example:
        >>> gm = capture(model, Inputs.of(batch))
        >>> print(gm.meta[CAPTURE])
        captured by symbolic, equal to the model bit for bit
    """
    check_model(model)
    failed: list[str] = []
    opaque: fx.GraphModule | None = None
    cause: BaseException | None = None
    for way in _ways(example, shapes):
        try:
            gm = _WAYS[way](model, example, others)
        except (CaptureError, InputError) as error:
            cause = error
            failed.append(f"{way}: {error}")
            if way == "export" and _is_final(error) and not shapes:
                failed.append("trace: not tried, it would fail alike")
                break
        else:
            if way != "symbolic" or example is None or not _hides_linears(gm):
                return _finished(gm, model, failed, shared)
            opaque = gm
            failed.append("symbolic: torch's own layers hide their Linears")
    if opaque is not None:
        return _finished(opaque, model, failed, shared)
    if example is None:
        failed.append("export, trace: they need inputs: pass example_inputs= or calibration=")
    raise CaptureError(f"cannot capture {type(model).__name__}.\n  " + "\n  ".join(failed)) from cause


def _is_final(error: CaptureError | InputError) -> bool:
    """Whether a trace cannot do better than export: the call does not fit, or a size is fixed, as a trace fixes more of them."""
    return isinstance(error, InputError) or (isinstance(error, DiffersError) and bool(error.variant))


def _ways(example: Inputs | None, shapes: bool) -> Sequence[str]:
    if example is None:
        return ("symbolic",)
    return ("export",) if shapes else tuple(_WAYS)


def _finished(gm: fx.GraphModule, model: nn.Module, failed: list[str], shared: bool) -> fx.GraphModule:
    linears = {name or "0": type(m).__name__ for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    gm.meta[LINEARS] = linears  # a model that is one Linear became a chain of one
    gm.meta[CAPTURE] = replace(gm.meta[CAPTURE], failed=tuple(failed))
    return gm if shared else part(gm, model)


def _symbolic(model: nn.Module, example: Inputs | None, _: Sequence[Inputs] = ()) -> fx.GraphModule:
    own = copy_of(model)
    changed = prepare(own)
    gm = symbolic_trace(own, model)
    if example is None:
        gm.meta[CAPTURE] = Captured("symbolic")
        return gm
    refuse_unscriptable(gm, model, example)
    twins = _twins(model, own, changed)
    gm.meta[CAPTURE] = Captured("symbolic", *verify(model, lambda inputs: inputs.call(gm), variants(example), twins))
    return gm


def _twins(model: nn.Module, own: nn.Module, changed: str, plain: bool = False) -> list[Twin]:
    """From the model to the copy that is captured, step by step."""
    twins = [Twin(model, _FUSED, plain=True)] if plain else []
    twins.append(Twin(copy_of(model), _GRADIENTS, plain))
    return [*twins, Twin(own, changed, plain)] if changed else twins


def _exported(model: nn.Module, example: Inputs | None, _: Sequence[Inputs] = ()) -> fx.GraphModule:
    return _by_running("export", model, example)


def _traced(model: nn.Module, example: Inputs | None, others: Sequence[Inputs] = ()) -> fx.GraphModule:
    return _by_running("trace", model, example, others)


def _by_running(way: str, model: nn.Module, example: Inputs | None, others: Sequence[Inputs] = ()) -> fx.GraphModule:
    """A graph of what the model does on the example, verified."""
    assert example is not None
    form = CallForm.of(model, example)
    own = copy_of(model)
    changed = prepare(own)
    runner, call = _RUNNERS[way]
    try:
        run = runner(own, form, example)
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError(f"{call} failed on {example}{place_of(error)}: {first_line(error)}") from error
    tries = variants(example, values=way == "trace", limits=run.limits)
    twins = _twins(model, own, changed, plain=True)
    more = ((", one of the other inputs", inputs) for inputs in others)
    try:
        equal = verify(model, lambda x: form.restore(form.plain(x).call(run.gm)), chain(tries, more), twins)
    except DiffersError as error:
        fixed = f". The trace fixed {', '.join(run.fixed)}" if run.fixed else ""
        raise DiffersError(f"{error}{fixed}", error.variant) from error
    run.gm.meta.update({CALL: form, CAPTURE: Captured(way, *equal, fixed=run.fixed)})
    return run.gm


_RUNNERS: dict[str, tuple[Callable[[nn.Module, CallForm, Inputs], Run], str]] = {
    "export": (export, "torch.export.export"),
    "trace": (trace, "torch.jit.trace"),
}
_WAYS: dict[str, Callable[[nn.Module, Inputs | None, Sequence[Inputs]], fx.GraphModule]] = {
    "symbolic": _symbolic,
    "export": _exported,
    "trace": _traced,
}


def _hides_linears(gm: fx.GraphModule) -> bool:
    """Whether a leaf module of the graph has Linears inside that could be called."""
    called = [gm.get_submodule(str(n.target)) for n in gm.graph.nodes if n.op == "call_module"]
    return any(type(m) is not nn.Linear and any(type(c) is nn.Linear for c in m.modules()) for m in called)
