"""Small mistakes at the edges of the interface: each ends in one line that shows the way on."""

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import InputError, LowRank, RoutedModule
from dendrofx.graph.find_sites import find_sites
from tests.models import Residual
from tests.search.cascade.models import certified


@pytest.fixture(scope="module")
def routed() -> RoutedModule:
    return dendrofx.transform(Residual().eval(), light=LowRank(2), decide=False)


@pytest.fixture(scope="module")
def shown() -> RoutedModule:
    return certified("model")  # type: ignore[no-any-return]


def loaded(module: nn.Module) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(dendrofx.script(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)  # type: ignore[no-any-return]


FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "eager": copy.deepcopy,
    "copied": copy.copy,
    "scripted": lambda m: dendrofx.script(copy.deepcopy(m)),
    "loaded": loaded,
}
SETS: list[tuple[Any, str]] = [
    (0.1, "tolerances are set by site, got 0.1: pass {site: value}, or for all of them dict.fromkeys("
          "dendrofx.tolerances(module), 0.1)"),
    (None, "tolerances are set by site, got None: pass {site: value}, or for all of them dict.fromkeys("),
    ({"fc9": 0.1}, "the module has no site 'fc9'; it has stem, fc1..fc2, head"),
    ({7: 0.1}, "the module has no site 7; it has stem, fc1..fc2, head"),
    ({"stem": -0.1}, "the tolerance of 'stem' must be a number of at least 0, got -0.1; 0.05 is five percent"),
    ({"stem": math.nan}, "the tolerance of 'stem' must be a number of at least 0, got nan; "),
    ({"stem": True}, "the tolerance of 'stem' must be a number of at least 0, got True; "),
    ({"stem": "0.1"}, "the tolerance of 'stem' must be a number of at least 0, got '0.1'; "),
    ({"stem": None}, "the tolerance of 'stem' must be a number of at least 0, got None; "),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_sites_have_one_name_everywhere(form: str, routed: RoutedModule) -> None:
    module = FORMS[form](routed)
    names = [s.name for s in routed.plan.routed]
    assert list(dendrofx.tolerances(module)) == names == ["stem", "fc1..fc2", "head"]
    try:
        dendrofx.set_tolerances(module, {"fc1..fc2": 0.25, "head": torch.tensor(0.5), "stem": 1e300})
        values = {n: float(t) for n, t in dendrofx.tolerances(module).items()}
        assert values == {"stem": torch.finfo(torch.float32).max, "fc1..fc2": 0.25, "head": 0.5}
        dendrofx.set_tolerances(module, {"fc1_fc2": 0.125})  # as the graph writes it
        assert float(dendrofx.tolerances(module)["fc1..fc2"]) == 0.125
        for values, message in SETS:  # type: ignore[assignment]
            before = {n: float(t) for n, t in dendrofx.tolerances(module).items()}
            given = {"head": 0.75, **values} if isinstance(values, dict) else values
            with pytest.raises(InputError) as error:
                dendrofx.set_tolerances(module, given)
            assert str(error.value).startswith(message)
            assert {n: float(t) for n, t in dendrofx.tolerances(module).items()} == before
    finally:  # a plain copy shares them
        dendrofx.set_tolerances(routed, {s.name: s.tolerance or 0.0 for s in routed.plan.routed})


def test_names_that_only_the_graph_changes() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    made = dendrofx.transform(model, light=LowRank(2), decide=False)
    assert list(dendrofx.tolerances(made)) == list(dendrofx.tolerances(loaded(made))) == ["0..2"]


def test_a_copy_keeps_the_plan(routed: RoutedModule) -> None:
    made, x = copy.copy(routed), torch.randn(5, 16)
    assert made.plan == routed.plan
    assert isinstance(made, RoutedModule)
    assert torch.equal(made(x), routed(x))
    assert made.forward_counted(x)[1] == routed.forward_counted(x)[1]
    made.plan = dendrofx.Plan([], 0.1)
    assert routed.plan.routed
    assert next(made.parameters()) is next(routed.parameters())


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: dendrofx.audit([0.0], None), "an audit tests a certificate, got None: pass plan.certificate of "),  # type: ignore[arg-type]
    (lambda: dendrofx.graph_text(nn.Linear(2, 2)), "a Linear has no graph to print: pass what dendrofx.transform "),  # type: ignore[arg-type]
    (lambda: find_sites("model"), "sites are those of a model, got 'model': pass an nn.Module in eval mode"),  # type: ignore[arg-type]
    (lambda: dendrofx.tolerances({}), "tolerances are those of a module that transform returned, or of its script"),  # type: ignore[arg-type]
    (lambda: dendrofx.set_tolerances(nn.Linear(2, 2), {"a": 0.1}), "the module has no site 'a'; it has none: nothing is"),
    (lambda: dendrofx.transform(nn.Linear(2, 2).eval(), max_deviation=5), "max_deviation is 5, 500 %; it is at most 1: 0.01 is"),
    (lambda: dendrofx.transform(nn.Linear(2, 2).eval(), max_deviation=1.01), "max_deviation is 1.01, 101 %; "),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_one_line_shows_the_way_on(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_losses_that_are_none_are_refused(shown: RoutedModule) -> None:
    assert shown.plan.certificate is not None
    for losses in (None, ["a"], object()):
        with pytest.raises(InputError, match="losses of an audit are numbers"):
            dendrofx.audit(losses, shown.plan.certificate)  # type: ignore[arg-type]


def test_sites_of_a_model_that_was_not_captured() -> None:
    assert [s.name for s in find_sites(Residual().eval())] == ["stem", "fc1..fc2", "head"]


def test_a_front_prints_in_a_few_lines(shown: RoutedModule) -> None:
    assert shown.front
    assert len(repr(shown.front)) < 1000 * len(shown.front)
    assert "tolerances={'model': " in repr(shown.front[0])


def test_a_pickled_result_is_loaded_as_its_docstring_says(routed: RoutedModule) -> None:
    assert "weights_only=False" in str(RoutedModule.__doc__)
    buffer = io.BytesIO()
    torch.save(routed, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False).plan == routed.plan
