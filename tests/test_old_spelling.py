"""What 0.5.0 was called with works for one version, with a message that has the new spelling."""

from typing import Any

import pytest

import dendrofx
from dendrofx import Budget, InputError, LowRank, Options, Prepacked
from dendrofx.guarantee.settings import Settings
from dendrofx.request.old_spelling import renamed
from tests.made import made

FLIP = Budget("flip", 0.1)


@pytest.mark.parametrize(("old", "new", "shown"), [
    ({"max_deviation": 0.05}, {"budget": 0.05}, r"pass budget=0\.05$"),
    ({"max_deviation": None, "budget": FLIP}, {"budget": FLIP}, r"^transform\(max_deviation=\) is"),
    ({"seed": 3, "full": Prepacked()}, {"options": Options(full=Prepacked(), seed=3)},
     r"pass options=dendrofx\.Options\(full=Prepacked\(\), seed=3\)$"),
    ({"max_deviation": 0, "decide": False, "options": Options(seed=2)}, {"budget": 0, "options": Options(decide=False, seed=2)},
     r"pass budget=0, options=dendrofx\.Options\(decide=False\)$"),
])  # fmt: skip
def test_old_options_become_new_ones(old: dict[str, Any], new: dict[str, Any], shown: str) -> None:
    with pytest.warns(FutureWarning, match=shown):
        assert renamed({**old, "scope": "block"}) == {**new, "scope": "block"}


def test_an_old_call_returns_what_a_new_one_does() -> None:
    kind = made("no-data")
    with pytest.warns(FutureWarning, match="goes with the next version") as said:
        module = dendrofx.transform(kind.model, light=LowRank(6), max_deviation=0.2, decide=False)  # type: ignore[call-arg]
    assert said[0].filename == __file__
    new = dendrofx.transform(kind.model, light=LowRank(6), budget=0.2, options=Options(decide=False))
    assert str(module.plan) == str(new.plan)
    with pytest.raises(InputError, match="two budgets: pass budget= alone"):
        dendrofx.transform(kind.model, budget=0.1, max_deviation=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "budget", [FLIP, Budget("deviation", 0.03, 0.9, output=["a", "b"]), Budget("cosine", 1e-5, output=1)]
)
def test_the_text_of_a_budget_is_a_budget(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget


def test_old_names() -> None:
    with pytest.warns(FutureWarning, match=r"^dendrofx\.Routed is called RoutedBlocks now"):
        assert dendrofx.Routed is dendrofx.RoutedBlocks  # type: ignore[attr-defined]
    module = made("mlp").module
    with pytest.warns(FutureWarning, match="^front is called settings now"):
        assert module.front == Settings() == module.settings
