"""Whole samples that repeat anywhere in the batch: with a mask of dead rows, and in both models of a cascade."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import Budget, InputError, LowRank, Options, RoutedModule
from dendrofx.runtime.repeats import sample_runs
from dendrofx.values.counts import executed_macs
from dendrofx.values.inputs import Inputs
from dendrofx.values.measure import counted, model_macs
from tests import padded
from tests.check import OTHER_GEMM
from tests.search.cascade import models as cascade

Given = dict[str, Tensor]


def copies(of: Given, order: list[int]) -> Given:
    return {name: value[torch.tensor(order)] for name, value in of.items()}


# By kind: lengths of the samples that there are, and of which each one of the batch is a copy.
SENTENCES: dict[str, tuple[list[int], list[int]]] = {
    "anywhere": ([3, 9, 2, 5], [3, 3, 1, 2, 1, 0, 0, 3]),
    "all": ([6], [0] * 8),
    "few": ([3, 9, 2, 5, 1], [0, 1, 2, 3, 4, 0]),
    "none": ([3, 9, 2, 5], [0, 1, 2, 3]),
    "one": ([4], [0]),
}


@cache
def made() -> tuple[nn.Module, RoutedModule]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = padded.rows_model()
        given = copies(padded.inputs([9, 4, 7, 1]), [0, 1, 0, 2, 0, 3, 1, 0])
        return model, transformed(model, given)


def transformed(model: nn.Module, given: Given, repeated_rows: Any = True) -> RoutedModule:
    asked: dict[str, Any] = {"dead_rows": "mask", "repeated_rows": repeated_rows, "budget": 0, "sites": []}
    return dendrofx.transform(model, given, **asked, options=Options(decide=False))


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_padded_batch_of_repeated_sentences(kind: str) -> None:
    model, new = made()
    lengths, order = SENTENCES[kind]
    given = copies(padded.inputs(lengths), order)
    live = given["mask"] != 0
    for ready in (new, dendrofx.script(new, freeze=True)):
        got = ready(**given)
        torch.testing.assert_close(got[live], model(**given)[live], **OTHER_GEMM)
        assert not got[~live].any()
    batch = [Inputs.of(given)]
    assert executed_macs(counted(new, batch), model_macs(model, batch)) == model_macs(new, batch)


def test_the_plan_says_so_and_is_replayed() -> None:
    model, new = made()
    said = "repeated rows: 4 of 8 samples are computed: 3 products; outputs equal to"
    assert said in " ".join(str(new.plan).split())
    again = dendrofx.transform(model, copies(padded.inputs([9, 4, 7, 1]), [0, 1, 0, 2, 0, 3, 1, 0]), plan=new.plan)
    assert again.plan == new.plan
    assert [n.target for n in again.graph.nodes] == [n.target for n in new.graph.nodes]


def test_all_inputs_are_named_or_none() -> None:
    model, given = padded.rows_model(), padded.inputs([9, 4])
    assert transformed(model, given, ["x", "mask"]).plan.repeated_rows.status == "distinct"
    with pytest.raises(
        InputError,
        match=r"repeated_rows=\['x'\]: with dead_rows, and at scope='model', whole samples .* name all of x, mask",
    ):
        transformed(model, given, "x")


def test_samples_that_read_others_are_refused() -> None:
    class Centred(padded.Rows):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            y = super().forward(x, mask)
            return y[:, 0] - y[:, 0].mean(0)

    model, given = Centred().eval().requires_grad_(False), padded.inputs([9, 9, 9, 9])
    plan = transformed(model, given).plan
    assert plan.repeated_rows.status == "refused"
    assert plan.repeated_rows.reason.startswith("a sample's outputs may depend on others: %mean")


@pytest.mark.slow
def test_samples_that_repeat_run_once_in_both_models_of_a_cascade() -> None:
    model, options = cascade.classifier(), {"light": [LowRank(4), LowRank(12)], "budget": Budget("flip", 0.02, 0.9)}
    new = dendrofx.transform(
        model,
        calibration=cascade.batches(),
        scope="model",
        repeated_rows=True,
        options=Options(tune_seconds=0),
        **options,
    )
    plain = dendrofx.transform(
        model, calibration=cascade.batches(), scope="model", options=Options(tune_seconds=0), **options
    )
    assert new.plan.cascade.status == "routed"
    rows = cascade.rows(64, 5)[torch.arange(64) % 16]
    torch.testing.assert_close(new(rows), plain(rows), **OTHER_GEMM)
    torch.testing.assert_close(dendrofx.script(new, freeze=True)(rows), plain(rows), **OTHER_GEMM)
    counts = new.forward_counted(rows)[1]["light/repeated rows of samples"]
    assert (counts["rows"], counts["distinct_rows"]) == (64, 16)
    assert dendrofx.transform(model, calibration=cascade.batches(), plan=new.plan).plan == new.plan


# ---------------------------------------------------------------------------------------------------- finding samples


@pytest.mark.parametrize("find", [sample_runs, torch.jit.script(sample_runs)], ids=["eager", "scripted"])
def test_samples_are_found_anywhere(find: Any) -> None:
    a, b = torch.tensor([[1.0, 2], [3, 4], [1, 2], [1, 2], [3, 4], [1, 3]]), torch.tensor([5, 6, 5, 7, 6, 5])
    runs = find([a, b])
    assert (runs.distinct, runs.rows) == (4, 6)
    assert sorted(runs.first.tolist()) == [0, 1, 3, 5]
    assert torch.equal(a[runs.first][runs.run], a)
    assert torch.equal(b[runs.first][runs.run], b)
    for values in ([], [1], [1, 2, 3, 4, 1]):
        x = torch.tensor(values, dtype=torch.long)
        assert find([x]).distinct == len(values)
    nan = torch.full((4, 2), torch.nan)
    assert find([nan]).distinct == 4
    signs = torch.tensor([[1.0, 0.0], [1, -0.0], [1, 0.0], [1, -0.0]])
    assert find([signs]).distinct == 4
    with pytest.raises(Exception, match="one row per sample"):
        find([a, b[:3]])
