"""What `transform` returned, at the edges of the interface: names, copies, settings and pickles."""

import copy

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import RoutedModule
from dendrofx.graph.find_sites import find_sites
from tests.asked import asked
from tests.made import SETTABLE, batches, loaded, made, unpickled
from tests.models import Residual, compressible
from tests.recorded import LOW


def values(module: nn.Module) -> dict[str, float]:
    return {name: float(tolerance) for name, tolerance in dendrofx.tolerances(module).items()}


@pytest.mark.parametrize("way", SETTABLE)
def test_sites_have_one_name_everywhere(way: str) -> None:
    routed = made("every-site").module
    module = SETTABLE[way](routed)
    assert list(values(module)) == [s.name for s in routed.plan.routed] == ["stem", "fc1..fc2", "head"]
    dendrofx.set_tolerances(module, {"fc1..fc2": 0.25, "head": torch.tensor(0.5), "stem": 1e300})
    assert values(module) == {"stem": torch.finfo(torch.float32).max, "fc1..fc2": 0.25, "head": 0.5}
    dendrofx.set_tolerances(module, {"fc1_fc2": 0.125})  # as the graph writes it
    assert values(module)["fc1..fc2"] == 0.125


def test_names_that_only_the_graph_changes() -> None:
    module = made("mlp").module
    assert list(values(module)) == list(values(loaded(dendrofx.script(module)))) == ["0..2"]


def test_a_plain_copy_keeps_the_plan_and_shares_weights_and_tolerances() -> None:
    routed = copy.deepcopy(made("every-site").module)
    routed.plan = made("every-site").plan
    same, x = copy.copy(routed), torch.randn(5, 64)
    assert isinstance(same, RoutedModule)
    assert same.plan == routed.plan
    assert torch.equal(same(x), routed(x))
    assert same.forward_counted(x)[1] == routed.forward_counted(x)[1]
    assert list(values(same)) == ["stem", "fc1..fc2", "head"]
    dendrofx.set_tolerances(same, {"stem": 0.375})
    assert values(routed)["stem"] == 0.375
    same.plan = dendrofx.Plan([], 0.1)
    assert routed.plan.routed
    assert next(same.parameters()) is next(routed.parameters())


def test_a_pickled_result_is_loaded_as_its_docstring_says() -> None:
    assert "weights_only=False" in str(RoutedModule.__doc__)
    assert unpickled(made("every-site").module).plan == made("every-site").plan


def test_a_front_prints_in_a_few_lines() -> None:
    settings = made("cascade").module.settings
    assert settings
    assert len(repr(settings)) < 200 * (len(settings) + 3)
    assert settings[0].name in repr(settings[0])


def test_sites_of_a_model_that_was_not_captured() -> None:
    assert [s.name for s in find_sites(Residual().eval())] == ["stem", "fc1..fc2", "head"]


def test_batch_sizes_are_sorted_and_taken_once() -> None:
    options = {"calibration": batches(), "light": LOW, "tune_seconds": 0}
    plan = dendrofx.transform(compressible(), batch_sizes=(8, 1, 8), **asked(**options)).plan
    assert plan.origin is not None
    assert plan.origin.batch_sizes == (1, 8)
