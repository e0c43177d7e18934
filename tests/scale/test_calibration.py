"""A calibration on Parquet files: the same module however they are cut, fitted to all samples and not to those that were kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import InputError
from dendrofx.graph.block import block_of
from dendrofx.graph.find_sites import find_sites
from dendrofx.scale import calibration
from dendrofx.scale.calibration import dealt_dataset
from dendrofx.statistics.moments import Moments
from dendrofx.statistics.sample import dealt, sample_keys
from dendrofx.values.calibration import SHARES, Calibration
from tests.made import made
from tests.scale.data import Data

pytestmark = pytest.mark.real("pyarrow")
OPTIONS = dendrofx.Options(tune_seconds=0)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return made("mlp").model


def files(it: Data, folder: Path, *cuts: int) -> Path:
    """The rows as files that end at those places."""
    for i, (a, b) in enumerate(zip([0, *cuts], [*cuts, None], strict=True)):
        it.parquet(folder / f"{i}.parquet", a, b)
    return folder


def parameters(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def test_a_dataset_gives_the_same_module_however_it_is_cut(it: Data, model: nn.Module, tmp_path: Path) -> None:
    one, two = (
        dendrofx.transform(model, calibration=files(it, tmp_path / f"{len(cuts)}", *cuts), budget=0.05, options=OPTIONS)
        for cuts in ((), (7, 200))
    )
    assert one.plan.routed
    assert [(s.name, s.light, s.gate) for s in one.plan.sites] == [(s.name, s.light, s.gate) for s in two.plan.sites]
    for a, b in zip(parameters(one), parameters(two), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert one.plan.origin == two.plan.origin
    assert one.plan.samples == two.plan.samples
    again = dendrofx.transform(model, calibration=tmp_path / "2", plan=one.plan, options=OPTIONS)
    for a, b in zip(parameters(one), parameters(again), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_are_of_all_samples_of_their_set(it: Data, model: nn.Module, tmp_path: Path) -> None:
    rows = torch.from_numpy(it.columns["input"])
    drawn = dealt_dataset(files(it, tmp_path, 100), model, 3, certified=False, kept=40)
    assert [sum(b.samples for b in part) for part in drawn.sets] == [16, 8, 8, 8]
    data = Calibration.dealt(list(drawn), drawn)
    own = dealt(sample_keys({"input": rows}, 3)[:, 0], SHARES)
    assert data.samples == (int((own == 0).sum()), 8, 8, 8)
    for i, part in enumerate(drawn.sets):
        assert all(bool((rows[own == i] == row).all(1).any()) for b in part for row in b.tensors[0])
    captured = torch.fx.symbolic_trace(model)
    site = next(iter(find_sites(captured)))
    moments = drawn.statistics.moments(captured, {site.name: site.nodes})[site.name]
    found: list[Tensor] = []
    layer: Callable[[nn.Module, Any], None] = lambda _, args: found.append(args[0])  # noqa: E731
    linears = [m for m in block_of(captured, site.nodes) if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_pre_hook(layer) for m in linears]
    captured(rows[own == 0])
    for hook in hooks:
        hook.remove()
    for one, taken in zip(moments, found, strict=True):
        wanted = Moments.of(taken.detach())
        assert one.count == wanted.count == int((own == 0).sum())
        torch.testing.assert_close(one.scatter, wanted.scatter, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.mean, wanted.mean, rtol=1e-5, atol=1e-5)


def test_scores_are_those_of_all_choosing_samples(it: Data, tmp_path: Path) -> None:
    module, rows = made("mlp").module, torch.from_numpy(it.columns["input"])
    drawn = dealt_dataset(files(it, tmp_path, 100), made("mlp").model, 3, certified=False, kept=40)
    own = dealt(sample_keys({"input": rows}, 3)[:, 0], SHARES)
    _, counts = module.forward_counted(rows[own == 2])
    tolerances = dendrofx.tolerances(module)
    found = drawn.statistics.scores(module)
    assert set(found) == {site for site in counts if "hard_rows" in counts[site]}
    for site, scores in found.items():
        assert scores.total == counts[site]["rows"] == int((own == 2).sum())
        tolerance = next(v for n, v in tolerances.items() if n == site or site.replace("..", "_") in n)
        assert scores.activity(tolerance) * scores.total == pytest.approx(counts[site]["hard_rows"], abs=1)


def test_a_fit_is_to_what_was_not_kept_too(
    it: Data, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def light(kept: int, folder: str) -> nn.Module:
        monkeypatch.setattr(calibration, "KEPT", kept)
        options = dendrofx.Options(tune_seconds=0, decide=False)
        given = files(it, tmp_path / folder)
        form = dendrofx.LowRank(8, "whitened")
        made = dendrofx.transform(model, calibration=given, light=form, budget=0.5, sites="0..2", options=options)
        return made.get_submodule("routed.site_0_2.light")

    torch.testing.assert_close(parameters(light(60, "few")), parameters(light(8192, "all")), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("columns", "message"), [
    ({"input": "x"}, "the calibration .* has no column input, but x, id, name; .* takes input"),
    ({}, "has too few samples, or too few that differ, for 4 disjoint sets"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused(
    it: Data, model: nn.Module, tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(it.parquet(tmp_path / "in" / "a.parquet", 0, 9))
    renamed = table.rename_columns([columns.get(n, n) for n in table.column_names])
    pyarrow.parquet.write_table(renamed.slice(0, 4) if not columns else renamed, tmp_path / "in" / "a.parquet")
    with pytest.raises(InputError, match=message):
        dendrofx.transform(model, calibration=tmp_path / "in", options=OPTIONS)
    with pytest.raises(InputError, match="there is no such file"):
        dendrofx.transform(model, calibration=str(tmp_path / "none.parquet"), options=OPTIONS)
