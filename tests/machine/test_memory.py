"""A long-running process grows neither with the row counts it meets (`tests/memory_growth.py` runs the calls) nor by freezing.

And the weights that are shared while a model is transformed are its own in the end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx.compare.controls import always_full, always_light
from dendrofx.errors import InputError
from dendrofx.graph.capture import capture
from dendrofx.guarantee.budget import Budget
from dendrofx.light import Int8, LightForm, Prepacked
from dendrofx.machine.memory import collect_garbage, unshare
from tests.asked import asked
from tests.memory_growth import FORMS, STATM, resident
from tests.models import Residual
from tests.recorded import rows

CALLS, LIMIT = 3000, 64.0  # without row buckets: 730 MB after as many calls
needs_statm = pytest.mark.skipif(not STATM.exists(), reason="needs /proc/self/statm to read the resident memory")


@pytest.fixture(scope="module")
def grown() -> dict[str, float | None]:
    """Megabytes by rung, from a process of their own: nothing else there takes or gives back memory."""
    command = [sys.executable, "-m", "tests.memory_growth", "--calls", str(CALLS)]
    root = Path(__file__).parents[2]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ONEDNN_PRIMITIVE_CACHE", "LRU_CACHE"))}
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, float | None] = json.loads(run.stdout)
    return found


@pytest.mark.slow
@needs_statm
@pytest.mark.parametrize("rung", FORMS)
def test_resident_memory_stays(rung: str, grown: dict[str, float | None]) -> None:
    megabytes = grown[rung]
    if megabytes is None:
        pytest.skip(f"{FORMS[rung]} is refused on this CPU")
    assert megabytes < LIMIT


@needs_statm
@pytest.mark.parametrize("form", [Prepacked(), Int8(weight_bits=7)], ids=str)
def test_freezing_lays_no_weights_out_again(form: LightForm) -> None:
    """Ten frozen modules of one branch, whose weights take 16 and 32 MB or more in each copy."""
    try:
        light = form.fit(nn.Linear(2048, 4096))
    except InputError as error:
        pytest.skip(str(error))
    x, wanted = torch.randn(3, 2048), light(torch.zeros(3, 2048))
    kept = [dendrofx.script(light, freeze=True)]
    collect_garbage()
    before = resident()
    kept += [dendrofx.script(light, freeze=True) for _ in range(10)]
    collect_garbage()
    assert resident() - before < 20e6
    assert torch.equal(kept[-1](torch.zeros(3, 2048)), wanted)
    assert torch.equal(kept[-1](x), light(x))


@needs_statm
def test_the_weights_of_a_frozen_module_go_with_it() -> None:
    """Thirty of 4 MB each: torch keeps what it freezes of a module scripted from Python for as long as the process runs."""

    def freeze_one() -> None:
        dendrofx.script(nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()).eval(), freeze=True)(torch.zeros(1, 1024))

    freeze_one()
    collect_garbage()
    before = resident()
    for _ in range(30):
        freeze_one()
    collect_garbage()
    assert resident() - before < 40e6


class Tied(nn.Module):
    """Two Linears of one weight, and a third."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x)).relu())  # type: ignore[no-any-return]


def test_weights_are_shared_until_they_part() -> None:
    model = Tied().eval()
    gm = capture(model, shared=True)
    places = [p.data_ptr() for p in model.parameters()]
    assert [p.data_ptr() for p in gm.parameters()] == places
    packed = Prepacked().fit(nn.Sequential(gm.get_submodule("third")))
    (plain,) = [b for n, b in packed.named_buffers() if n.endswith("plain")]
    assert plain.data_ptr() == model.third.weight.data_ptr()
    x = torch.randn(3, 64)
    wanted, bystander = gm(x), model.third.weight.detach()

    made = unshare({"graph": gm, "forms": [packed]}, model)

    assert made["graph"] is gm
    assert [p.data_ptr() for p in model.parameters()] == places
    assert bystander.data_ptr() == model.third.weight.data_ptr()
    assert not {p.data_ptr() for p in gm.parameters()} & set(places)
    assert gm.first.weight.data_ptr() == gm.second.weight.data_ptr()  # type: ignore[union-attr]
    assert plain.data_ptr() == gm.third.weight.data_ptr()  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(gm(x), wanted)
    assert torch.equal(plain, gm.third.weight)  # type: ignore[arg-type]


def test_a_callers_function_keeps_its_weights() -> None:
    model = Tied().eval()
    gm = capture(model, shared=True)
    seen = model.third.weight.detach()

    def metric() -> torch.Tensor:
        return seen

    gm.meta["callers"] = metric
    unshare(gm, model)
    assert seen.data_ptr() == model.third.weight.data_ptr()


def test_parameters_of_other_classes_and_of_inference_mode_are_copied() -> None:
    class Kept(nn.Parameter):
        """A class of the caller's."""

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    with torch.inference_mode():
        model[0].weight = nn.Parameter(torch.randn(8, 8), requires_grad=False)  # type: ignore[assignment]
    model[2].weight = Kept(model[2].weight.detach().clone())  # type: ignore[assignment]
    gm, x = capture(model, shared=True), torch.randn(3, 8)
    shared = {p.data_ptr() for p in gm.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert shared == {model[0].bias.data_ptr(), model[2].bias.data_ptr()}
    assert torch.equal(unshare(gm, model)(x), model(x))


BUDGET = Budget.parse("deviation:0.3:0.9")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"budget": 0.3, "decide": False},
        {"budget": 0.0, "example_inputs": rows(4)},
        {"budget": BUDGET, "tune_seconds": 0},
        {"budget": BUDGET, "scope": "model", "decide": False},
    ],
    ids=["routed", "exact", "certified", "cascade"],
)
def test_training_on_does_not_reach_what_was_made(options: dict[str, Any]) -> None:
    model = Residual(64, 256).eval()
    made = dendrofx.transform(model, calibration=[rows(400, i) for i in range(4)], **asked(**options))
    x = rows(20, 9)

    def results() -> list[torch.Tensor]:
        modules = [made, *([] if not made.plan.rewrites else [always_full(made), always_light(made)])]
        return [module(x) for module in [*modules, *(setting.make() for setting in made.settings)]]

    wanted = results()
    assert bool(made.plan.rewrites) == (options["budget"] != 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    assert all(map(torch.equal, results(), wanted))
    assert not torch.equal(model(x), made(x))
