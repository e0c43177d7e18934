"""Row rules: one case per kind of op, row-wise and not, each verdict with its reason, and each row-wise one tried."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.rows.rules import RULES, SIZED
from dendrofx.values.inputs import Inputs
from tests.rows.bundle import Judged, inputs
from tests.rows.cases import MIXES, ROW_WISE

aten = torch.ops.aten


@pytest.fixture(scope="module")
def row_wise() -> Judged:
    return Judged(ROW_WISE)


@pytest.fixture(scope="module")
def mixes() -> Judged:
    return Judged({name: case for name, (_, case) in MIXES.items()})


@pytest.mark.parametrize("case", ROW_WISE)
def test_row_wise(row_wise: Judged, case: str) -> None:
    assert set(row_wise.verdicts(case)) == {"row-wise"}


@pytest.mark.parametrize("case", MIXES)
def test_mixes_rows(mixes: Judged, case: str) -> None:
    reason, _ = MIXES[case]
    assert reason in mixes.verdicts(case)


@pytest.mark.parametrize("batch", [2, 5])
def test_what_is_row_wise_withstands_the_experiment(row_wise: Judged, mixes: Judged, batch: int) -> None:
    row_wise.analysis.check(inputs(batch, 7))
    mixes.analysis.check(inputs(batch, 7))


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def analysed(function: Callable[..., Tensor], x: Tensor) -> RowAnalysis:
    return RowAnalysis(capture(Calls(function).eval(), Inputs.of({"x": x}), shapes=True))


@pytest.mark.parametrize(
    ("op", "function", "size", "message"),
    [
        (
            aten.softmax,
            lambda x: x.reshape(x.size(0), -1, 8).softmax(1),
            (3, 5, 8),
            "%softmax was taken for row-wise, but reads other rows: bt.",
        ),
        (
            aten.cumsum,
            lambda x: x.reshape(x.size(0), -1, 8).cumsum(0),
            (3, 5, 8),
            "%cumsum was taken for row-wise, but reads other rows: bt.",
        ),
        (
            aten.tril,
            lambda x: x.tril(),
            (4, 6),
            "%tril was taken for row-wise, but depends on a sample's place in the batch: bt",
        ),
    ],
    ids=["softmax of tokens", "cumsum of samples", "a triangle of rows"],
)
def test_a_wrong_rule_is_caught(
    monkeypatch: pytest.MonkeyPatch, op: object, function: Callable[..., Tensor], size: tuple[int, ...], message: str
) -> None:
    monkeypatch.setitem(RULES, op, lambda _: None)
    x = torch.randn(size)
    analysis = analysed(function, x)
    with pytest.raises(PassError) as caught:
        analysis.check(Inputs.of({"x": x}))
    assert str(caught.value) == message


def test_an_experiment_sees_values_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of zeros and infinities: no finite value ever moves."""
    monkeypatch.setitem(RULES, aten.cumsum, lambda _: None)
    x = torch.where(torch.arange(9)[:, None] == torch.randint(9, (8, 1, 1)), torch.inf, 0.0)
    with pytest.raises(PassError, match="reads other rows"):
        analysed(lambda x: x.cumsum(1), x).check(Inputs.of({"x": x}))


def test_a_linear_with_hooks_is_not_row_wise() -> None:
    gm = capture(nn.Sequential(nn.Linear(8, 4)).eval().requires_grad_(False), inputs_of_x(), shapes=True)
    linear = next(n for n in gm.graph.nodes if n.op == "call_module")
    assert RowAnalysis(gm).row_wise(linear)
    gm.get_submodule(str(linear.target)).register_forward_hook(lambda _module, _args, out: out.flip(0))
    assert str(RowAnalysis(gm).notes[linear]) == "mixes rows: its hooks may read other rows"


def inputs_of_x() -> Inputs:
    return Inputs.of(torch.randn(3, 5, 8))


def test_no_rule_for_what_draws_numbers_or_writes() -> None:
    """Names, not kinds: the table is where a new op would slip in."""
    names = {op.__name__ for op in RULES}
    assert not [n for n in names if n.endswith("_") and not n.endswith("__")]
    assert not names & {"dropout", "rand_like", "randn_like", "bernoulli", "multinomial", "empty_like", "new_empty"}


def test_sizes_are_counted_anew_only_where_a_rule_checks_them() -> None:
    assert {op.__name__ for op in SIZED} == {
        *("reshape", "flatten", "unflatten", "expand", "repeat", "slice"),
        *("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"),
    }
