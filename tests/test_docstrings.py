"""Every public name has a docstring with an example, and the examples run."""

import copy
import doctest
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import Budget, InputError, Options, passes
from tests.made import made
from tests.search.cascade import models as cascade

EXAMPLES = {
    name: doctest.DocTestParser().get_examples(getattr(dendrofx, name).__doc__ or "") for name in dendrofx.__all__
}


def test_every_public_name_has_an_example() -> None:
    assert [name for name, examples in EXAMPLES.items() if not examples] == []


def counted(model: Any, *args: Any, **options: Any) -> Any:
    """Transform without timing, which takes seconds; a budget to certify needs a model that decides."""
    options.setdefault("options", Options(tune_seconds=0))
    if isinstance(options.get("budget"), Budget):
        model, options["calibration"] = cascade.classifier(), cascade.batches()
    return dendrofx.transform(model, *args, **options)


@cache
def names() -> dict[str, Any]:
    """What examples take for granted: a model of 64 features that routes, its batches, and a certified one."""
    it, shown = made("residual"), made("cascade")
    routed = copy.deepcopy(it.module)  # some set its tolerances
    fc1, fc2 = nn.Linear(256, 2048), nn.Linear(2048, 256)
    public = {name: getattr(dendrofx, name) for name in dendrofx.__all__}
    batches = it.options["calibration"]
    return {
        **public,
        "dendrofx": SimpleNamespace(**{**public, "transform": counted}),
        "torch": torch,
        "nn": nn,
        "passes": passes,
        "model": it.model,
        "batches": batches,
        "test_batches": batches[:2],
        "routed": routed,
        "module": routed,
        "x": batches[0],
        "rows": torch.randn(400, 256),
        "fc1": fc1,
        "fc2": fc2,
        "budget": Budget("flip", 0.02, 0.9),
        "certain": copy.deepcopy(shown.module),
        "certificate": shown.plan.certificate,
        "losses": [torch.zeros(400, 1, dtype=torch.float64)],
        "batch": {"x": batches[0]},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples find a saved module, a plan, and a file that is neither."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "README.md").write_text("no plan, no artifact\n", encoding="utf-8")
    dendrofx.save(made("residual").module, str(folder / "model.pt"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", dendrofx.__all__)
def test_the_examples_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = dict(names())
    made("residual").plan.save("plan.json")
    if name == "Shadow":  # for what was certified
        found |= {"routed": found["certain"], "batch": {"input": cascade.batches()[0]}}
    for example in EXAMPLES[name]:
        try:
            exec(compile(example.source, f"<{name}>", "exec"), found)
        except InputError as error:
            if "a CPU with" not in str(error):  # a form that the machine lacks
                raise
            break
