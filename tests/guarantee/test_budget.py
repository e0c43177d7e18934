"""Budgets: metrics, what they read of an output, and bad input."""

import pytest
import torch

from dendrofx import Budget, InputError
from dendrofx.guarantee.metrics import clipped_deviation, decisions, flips, half_cosine_distance


def test_decisions_of_many_one_and_no_logits() -> None:
    assert decisions(torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])).tolist() == [[1], [0]]
    assert decisions(torch.tensor([[-1.0], [0.5]])).tolist() == [[0], [1]]
    assert decisions(torch.tensor([-1.0, 0.5])).tolist() == [[0], [1]]


def test_a_sample_flips_where_any_of_its_decisions_does() -> None:
    reference = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    other = reference.clone()
    other[1, 1] = torch.tensor([0.0, 1.0])
    assert flips(reference, other).tolist() == [0.0, 1.0]


def test_deviation_is_clipped_and_cosine_halved() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[3.0, 4.5], [-9.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert clipped_deviation(a, b).tolist() == pytest.approx([0.1, 1.0, 1.0, 0.0])
    assert half_cosine_distance(a, b).tolist() == pytest.approx([0.0005, 1.0, 0.5, 0.0], abs=1e-3)
    assert Budget("exceeds(0.05)", 0.1).losses(a, b).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert Budget("exceeds(0.2)", 0.1).losses(a, b).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_outputs_that_are_not_finite_are_lost_unless_the_original_s_are_alike() -> None:
    nan = float("nan")
    a, b = torch.tensor([[1.0, 2.0], [nan, 1.0]]), torch.tensor([[nan, 2.0], [nan, 1.0]])
    assert Budget("deviation", 0.1).losses(a, b).tolist() == [1.0, 0.0]
    assert Budget("cosine", 0.1).losses(a[:1], b[:1]).tolist() == [1.0]


def test_parsing() -> None:
    assert Budget.parse("flip:0.01:0.99") == Budget("flip", 0.01, 0.99)
    assert Budget.parse("exceeds(0.05):0.02") == Budget("exceeds(0.05)", 0.02, 0.95)
    assert str(Budget("flip", 0.01)) == "flip at most 1 %, 95 % confidence"


def test_a_user_s_metric() -> None:
    budget = Budget(lambda a, b: (a - b).abs().amax(1), 0.1)
    assert budget.losses(torch.zeros(2, 2), torch.tensor([[0.5, 0.0], [0.0, 1.0]])).tolist() == [0.5, 1.0]
    assert budget.test == "hoeffding-bentkus"
    for bad, says in (
        (lambda a, b: torch.full([2], float("nan")), "gave NaN for sample 0"),
        (lambda a, b: torch.tensor([0.0, 1.5]), r"gave 1.5 for sample 1: losses must be in \[0, 1\]"),
        (lambda a, b: torch.tensor([0.0, -1.0]), "gave -1 for sample 1"),
        (lambda a, b: torch.zeros(3), "for 2 samples: return one loss each"),
        (lambda a, b: 0.0, "for 2 samples: return one loss each"),
    ):
        with pytest.raises(InputError, match=says):
            Budget(bad, 0.1).losses(torch.zeros(2, 2), torch.zeros(2, 2))


def test_which_output_it_is_about() -> None:
    one, two, ids = torch.zeros(4, 3), torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
    pair, both = (("0", "1"), (one, two)), (("logits", "hidden"), (one, two))
    assert Budget("flip", 0.1).cover(("output",), (one,)).places == (0,)
    assert Budget("flip", 0.1).cover(*both).covered == ("logits",)
    assert Budget("flip", 0.1).cover(*both).left == ("hidden",)
    assert Budget("flip", 0.1, output="hidden").cover(*both).places == (1,)
    assert Budget("flip", 0.1, output=1).cover(*pair).places == (1,)
    assert Budget("flip", 0.1, output=["hidden", 0]).cover(*both).covered == ("logits", "hidden")
    assert Budget("deviation", 0.1).cover(*pair).places == (0, 1)
    assert Budget("flip", 0.1).cover(("ids", "logits"), (ids, one)).covered == ("logits",)
    for budget in (Budget("flip", 0.1), Budget(lambda a, b: (a - b).abs().amax(1), 0.1)):
        with pytest.raises(InputError, match=r"the model has the outputs 0, 1: name the one that .* is about"):
            budget.cover(*pair)
    with pytest.raises(InputError, match=r"output='x' is no floating-point output of the model; it has output"):
        Budget("flip", 0.1, output="x").cover(("output",), (one,))
    with pytest.raises(InputError, match="name the one that deviation is about"):
        Budget("deviation", 0.1).single(Budget("deviation", 0.1).cover(*pair))


def test_how_many_samples_show_a_budget() -> None:
    budget = Budget("flip", 0.01)
    assert budget.least == 299
    assert budget.samples_to_show(0.0) == 299
    assert budget.samples_to_show(0.01) is None
    enough = budget.samples_to_show(0.005)
    assert budget.p_value(0.005 * enough, enough) <= 0.05
