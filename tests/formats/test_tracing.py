"""What is said of a program that takes less than its module, and of one that cannot be made."""

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from dendrofx.formats.cause import cause
from dendrofx.formats.sizes import size_guards, warn_of_small
from dendrofx.graph.inputs import Input

INPUTS = (Input("x", "float32", ("N", 4)),)


class Steps(nn.Module):
    """How far each row is from the one before, and whether any is."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[1:] - x[:-1]).abs().gt(0).logical_and(x[1:].gt(0)).any(0)


class Fifth(nn.Module):
    """A row that fewer than five do not have."""

    def forward(self, x: Tensor) -> Tensor:
        return x[4] + x.sum(0)


def guards(module: nn.Module, given: dict[str, Tensor]) -> tuple[str, ...]:
    program = torch.export.export(module, (), given, dynamic_shapes={"x": {0: Dim.AUTO}}, strict=False)
    return size_guards(program, ["x"])


def test_a_size_that_the_module_takes_and_its_program_does_not_is_named() -> None:
    module, given = Steps(), {"x": torch.ones(7, 4)}
    found = guards(module, given)
    assert "x.size(1) == 4" in found
    with pytest.warns(UserWarning, match=r"axis 0 of 'x' cannot be [12] in this format: .* x\.size\(0\)"):
        warn_of_small(found, module, INPUTS, given)


@pytest.mark.filterwarnings("error")
def test_a_size_that_the_module_does_not_take_either_is_not() -> None:
    module, given = Fifth(), {"x": torch.ones(7, 4)}
    found = guards(module, given)
    assert any("x.size(0)" in guard for guard in found)
    warn_of_small(found, module, INPUTS, given)


def test_the_cause_of_an_error_is_the_first_of_its_chain_without_colours() -> None:
    error = RuntimeError("step 3 of 3")
    error.__cause__ = ValueError("\x1b[96mno form for %amax\x1b[0m.\nmore")
    assert cause(error) == "no form for %amax"
