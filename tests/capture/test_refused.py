"""What no way can capture: each says on which step it failed, on which input and at which line."""

import pytest
import torch
from torch import nn

from dendrofx.capture import capture
from dendrofx.errors import CaptureError
from dendrofx.inputs import Inputs
from tests.capture.deciding import (
    Checks,
    Counts,
    Decides,
    LargeBatches,
    Rolls,
    Uncopied,
    Unrolls,
    WithFunction,
    WithScripted,
)
from tests.capture.models import WIDTH, Autocast

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
    assert failed["export"].startswith(f"torch.export.export failed on (float32[8, 16]) at {deciding_file()}:")
    assert f"  {line}: Could not guard on data-dependent expression " in failed["export"]
    assert failed["trace"].startswith(
        "the captured graph of Decides differs from the model on (float32[4, 16]) with its numbers negated (largest difference "
    )
    assert DOES in failed["trace"]
    assert failed["trace"].endswith(f"  {line}")
    assert ". The trace fixed deciding.py:" in failed["trace"]


@pytest.mark.parametrize("model", [Rolls(), Counts()], ids=lambda m: type(m).__name__)
def test_what_changes_from_call_to_call_is_refused_by_every_way(model: nn.Module) -> None:
    failed = refusal(model)
    assert list(failed) == ["symbolic", "export", "trace"]
    for why in failed.values():
        assert why.startswith(
            f"the captured graph of {type(model).__name__} differs from the model on (float32[8, 16]) (largest"
        )
        assert DOES in why


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
    assert why.startswith("torch.jit.trace failed on (float32[8, 16]) at ")
    assert why.endswith(": no")


def test_what_cannot_be_copied_is_refused_by_every_way() -> None:
    why = "Uncopied cannot be copied: cannot pickle 'generator' object"
    assert refusal(Uncopied()) == {"symbolic": why, "export": why, "trace": why}


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


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            Unrolls(),
            r"export: the captured graph of Unrolls fails on \(float32\[1, 16\]\) with one sample: list index out of",
        ),
        (
            LargeBatches(),
            r"export: the captured graph of LargeBatches differs from the model on \(float32\[101, 16\]\) with 101 entries in"
            r" axis 0 \(largest difference 0\.5 of the largest output\): its forward does something at trace time",
        ),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_size_in_the_graph_is_refused_by_the_variant_that_shows_it(model: nn.Module, why: str) -> None:
    with pytest.raises(CaptureError, match=why) as caught:
        capture(model.eval(), Inputs.of(X))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"cannot capture {type(model).__name__}."
    assert lines[1].startswith(
        f"  symbolic: cannot trace {type(model).__name__} at {__file__.rpartition('/')[0]}/deciding.py:"
    )
    assert lines[3:] == ["  trace: not tried, it would fail alike"]
