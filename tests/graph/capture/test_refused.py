"""What no way can capture: each says on which step it failed, on which input and at which line."""

import copy

import pytest
import torch
from torch import nn

from dendrofx.errors import CaptureError
from dendrofx.graph.capture import capture
from dendrofx.values.inputs import Inputs
from tests.graph.capture.deciding import (
    Averages,
    Checks,
    Counts,
    Decides,
    Drops,
    Replaces,
    Rolls,
    Uncopied,
    Unrolls,
    WithFunction,
    WithScripted,
    Writes,
    WritesSame,
)
from tests.graph.capture.models import WIDTH, Autocast

X = torch.randn(8, WIDTH)


def refusal(model: nn.Module) -> dict[str, str]:
    """Why each way failed."""
    with pytest.raises(CaptureError) as caught:
        capture(model.eval(), Inputs.of(torch.rand(8, WIDTH)))
    first, *lines = str(caught.value).splitlines()
    assert first == f"cannot capture {type(model).__name__}."
    return dict(line.strip().split(": ", 1) for line in lines)


DOES = ": its forward does something at trace time that it does not do per call. Transform the submodule that holds the Linears"


def test_a_branch_by_value_is_refused_by_every_way_with_its_line() -> None:
    """The example takes one branch, and so do all its parts: other values show the other."""
    line = "`return self.mlp(x) if x.sum() > 0 else self.mlp(-x)`"
    failed = refusal(Decides())
    assert list(failed) == ["symbolic", "export", "trace"]
    assert failed["symbolic"].startswith(f"cannot trace Decides at {deciding_file()}:")
    assert (
        f"  {line}: its forward decides something from values that are known only when it runs (" in failed["symbolic"]
    )
    assert failed["export"].startswith(f"torch.export.export failed on (x=float32[8, 16]) at {deciding_file()}:")
    assert f"  {line}: Could not guard on data-dependent expression " in failed["export"]
    assert failed["trace"].startswith(
        "the captured graph of Decides differs from the model on (x=float32[4, 16]) with its numbers negated (largest difference "
    )
    assert DOES in failed["trace"]
    assert failed["trace"].endswith(f"  {line}")
    assert ". The trace fixed deciding.py:" in failed["trace"]


UNKEPT: dict[str, tuple[nn.Module, str]] = {
    "random": (
        Rolls(),
        " gives another output for the same inputs every time: it counts its calls, or draws random numbers",
    ),
    "counting": (
        Counts(),
        " gives another output for the same inputs every time: it counts its calls, or draws random",
    ),
    "dropout": (Drops(), " gives another output for the same inputs every time: it draws random numbers (dropout with"),
    "in place": (
        Writes(),
        " writes into its input 'x' in place, which a graph must not: in its forward work on a copy, x =",
    ),
    "in place, same values": (WritesSame(), " writes into its input 'x' in place, which a graph must not: "),
    "a buffer": (Averages(), " changes its buffer 'mean' in forward: a graph keeps no state from call to call."),
    "another buffer": (Replaces(), " changes its buffer 'mean' in forward: a graph keeps no state from call to call."),
}


@pytest.mark.parametrize("kind", UNKEPT)
def test_what_no_graph_keeps_is_refused_by_name_and_happens_to_copies_alone(kind: str) -> None:
    model, why = UNKEPT[kind]
    x, state = torch.rand(8, WIDTH), copy.deepcopy(model.state_dict())
    given = x.clone()
    with pytest.raises(CaptureError) as caught:
        capture(model.eval(), Inputs.of(x))
    assert str(caught.value).startswith(f"{type(model).__name__}{why}")
    assert torch.equal(x, given)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (WithFunction(), "the trace holds a call of the autograd.Function Twice, which is no plain operation ("),
        (WithScripted(), "the trace holds prim::If, which is no plain operation ("),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_plain_operation_is_refused_by_name(model: nn.Module, why: str) -> None:
    failed = refusal(model)
    assert failed["trace"].startswith(why)
    assert "deciding.py" in failed["trace"]


def test_what_cannot_be_run_by_trace_is_an_error_with_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no\nmore")

    monkeypatch.setattr(torch.jit, "trace", fails)
    why = refusal(Decides())["trace"]
    assert why.startswith("torch.jit.trace failed on (x=float32[8, 16]) at ")
    assert why.endswith(": no")


def test_what_cannot_be_copied_is_named() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Uncopied().eval(), Inputs.of(X))
    assert str(caught.value) == (
        "Uncopied cannot be copied: its attribute 'lines', a generator, cannot: cannot pickle 'generator' object. Set it to None"
        " while the model is transformed"
    )


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    capture(Checks().eval(), Inputs.of(X))
    capture(Autocast().eval(), Inputs.of(X))
    refusal(Decides())
    assert capfd.readouterr() == ("", "")


def test_without_inputs_the_other_ways_are_not_tried() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Checks().eval())
    assert str(caught.value).splitlines()[2] == (
        "  export, trace: they need inputs: pass example_inputs= or calibration="
    )


def deciding_file() -> str:
    """The file of the models."""
    return f"{__file__.rpartition('/')[0]}/deciding.py"


def test_a_fixed_number_of_samples_is_refused() -> None:
    failed = refusal(Unrolls())
    assert list(failed) == ["symbolic", "export", "trace"]
    for way in ("export", "trace"):
        assert failed[way].startswith("the captured graph of Unrolls ")
        assert " sample" in failed[way]
