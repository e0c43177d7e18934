"""The options of `transform` that say how it decides: what it takes, and what it refuses in words."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import InputError, LowRank, Prepacked, Pruned, transform
from tests.models import Residual, compressible
from tests.recorded import EIGHT, EVERY, LOW, rows

FULL = "full must be a light form such as dendrofx.Prepacked() or dendrofx.Pruned(energy=1.0)"


def batches() -> list[Tensor]:
    return [rows(60, i) for i in range(10)]


@pytest.mark.parametrize(("options", "message"), [
    ({"full": "Prepacked()"}, f"{FULL}, got 'Prepacked()'"),
    ({"full": Prepacked}, f"{FULL}, got {Prepacked!r}"),
    ({"full": EVERY}, f"{FULL}, got {EVERY!r}"),
    ({"min_speedup": 0}, "min_speedup must be a number above 0, got 0; 1.05 is five percent faster"),
    ({"min_speedup": True}, "min_speedup must be a number above 0, got True; 1.05 is five percent faster"),
    ({"min_speedup": float("nan")}, "min_speedup must be a number above 0, got nan; 1.05 is five percent faster"),
    ({"tune_seconds": -1}, "tune_seconds must be a number of at least 0, got -1"),
    ({"tune_seconds": "60"}, "tune_seconds must be a number of at least 0, got '60'"),
    ({"tune_seconds": float("inf")}, "tune_seconds must be a number of at least 0, got inf"),
    *[({"batch_sizes": b}, f"batch_sizes must be whole numbers of at least 1, such as [1, 256], got {b!r}")
      for b in ([], [0], [1, 2.5], [True], "256", 256, [None], [-1, 4])],
    ({"plan": "plan.json"}, "plan must be a dendrofx.Plan, such as Plan.load('plan.json') gives, got 'plan.json'"),
])  # fmt: skip
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        dendrofx.transform(compressible(), calibration=batches(), **options)
    assert str(error.value) == message


def test_batch_sizes_are_sorted_and_taken_once() -> None:
    plan = dendrofx.transform(
        compressible(), calibration=batches(), batch_sizes=(8, 1, 8), light=LOW, tune_seconds=0
    ).plan
    assert plan.origin is not None
    assert plan.origin.batch_sizes == (1, 8)


def test_a_full_form_that_does_not_fit_is_an_error_that_names_the_site() -> None:
    with pytest.raises(InputError) as error:
        dendrofx.transform(
            Residual(64, 256).eval(), calibration=batches(), light=EIGHT, full=Pruned(1.0), tune_seconds=0
        )
    assert "stem" in str(error.value)


# ------------------------------------------------------------------------------------------ forms that do not fit a site

TWO_SITES = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.LayerNorm(64), nn.Linear(64, 1)]


@pytest.mark.parametrize("with_data", [False, True])
def test_a_site_that_a_named_form_does_not_fit_is_refused_alone(with_data: bool) -> None:
    data = [torch.randn(64, 64) for _ in range(8)] if with_data else None
    model = nn.Sequential(*TWO_SITES).eval()
    made = transform(model, calibration=data, decide=False, max_deviation=0.5, tune_seconds=0, light=LowRank(8))
    found = {s.name: s for s in made.plan.sites}
    assert {name: s.status for name, s in found.items()} == {"0..2": "routed", "4": "refused"}
    assert found["4"].reason.startswith("LowRank(rank=8, basis='weight') saves no multiply-adds: 64 of the block's 64")


def test_a_form_that_fits_no_site_is_an_error() -> None:
    head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 1)).eval()
    with pytest.raises(InputError, match=r"^site '1': LowRank\(rank=8, basis='weight'\) saves no multiply-adds"):
        transform(head, light=LowRank(8), decide=False)
