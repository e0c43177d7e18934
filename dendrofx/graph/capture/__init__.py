"""Capture: from an `nn.Module` to a graph module that computes the same function.

Three ways, in this order; what one cannot do, the next tries, and no graph is trusted before it has been run against the model.

    symbolic   torch.fx.symbolic_trace: plain models; works without example inputs
    export     torch.export, regrouped (`exported.py`): Hugging Face transformers, torch's own encoder layers
    trace      torch.jit.trace, read back (`traced.py`): models that turn tensors into Python values
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from dendrofx.graph.capture.attempts import Attempts
from dendrofx.graph.capture.captured import Captured, check_sizes, remember
from dendrofx.graph.capture.check import check_model
from dendrofx.graph.capture.symbolic import Tracer, is_routed
from dendrofx.machine.cores import on_free_cores
from dendrofx.machine.memory import unshare
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs

__all__ = ["Captured", "Tracer", "capture", "capture_call", "check_sizes", "is_routed", "remember"]


def capture(
    model: nn.Module,
    example: Inputs | None = None,
    shapes: bool = False,
    others: Sequence[Inputs] = (),
    shared: bool = False,
) -> fx.GraphModule:
    """Trace a copy of `model`; the model itself is never run or touched, nor are the inputs.

    Args:
        model: in eval mode, on the CPU.
        example: inputs to capture with and to verify the graph on, as the model is called; without them only plain models can
            be captured, unverified.
        shapes: take the way that leaves symbolic shapes, which the row analysis reads.
        others: more inputs, such as calibration batches, to verify a trace on, which fixes values.
        shared: leave the parameters in the model's memory; `memory.part` gives the result its own.

    Returns:
        A graph module without gradients, with its own copy of the parameters. `meta[CAPTURE]` says how it was captured,
        `meta[CALL]` how it is called.

    Raises:
        InputError: training mode, parameters that are not on the CPU, or inputs that do not fit.
        CaptureError: every way failed, each with the step and the input on which it did; or the model does what no graph can.

    Example:
        >>> gm = capture(model, Inputs.of(batch))
        >>> print(gm.meta[CAPTURE])
        captured by symbolic, equal to the model bit for bit
    """
    check_model(model)
    form = CallForm.of_signature(model) if example is None else CallForm.of(model, example)
    plain = None if example is None else form.plain(example)
    return capture_call(model, form, plain, shapes, [form.plain(x) for x in others], shared)


@on_free_cores()
def capture_call(
    model: nn.Module,
    form: CallForm,
    example: Inputs | None,
    shapes: bool = False,
    others: Sequence[Inputs] = (),
    shared: bool = False,
) -> fx.GraphModule:
    """Capture a model whose form of call is known, with inputs as a graph takes them; see `capture`."""
    # inputs that are one tensor would become one input of the graph
    example = None if example is None else example.copied()
    found = Attempts.prepared(model, form, example, others).by(_ways(example, shapes))
    return found if shared else unshare(found, model)


def _ways(example: Inputs | None, shapes: bool) -> Sequence[str]:
    if example is None:
        return ("symbolic",)
    return ("export",) if shapes else ("symbolic", "export", "trace")
