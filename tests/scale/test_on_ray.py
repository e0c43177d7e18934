"""The same runs on Ray: answers, order and counts as here, and every row once although an actor is killed."""

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dendrofx
from dendrofx import InputError
from dendrofx.graph.find_sites import find_sites
from dendrofx.scale import on_ray
from dendrofx.scale.calibration import Source
from dendrofx.scale.parts import row_groups
from dendrofx.scale.tally import Reading
from dendrofx.values.calibration import SHARES
from tests.made import made
from tests.scale.data import PER_CALL, Data

pytestmark = [
    pytest.mark.real("ray"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]  # Ray's own, in several of its files
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module", autouse=True)
def cluster(it: Data) -> Iterator[Any]:
    """Three cores, whatever the machine has: two workers, and what feeds a Dataset."""
    import ray

    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (15 is Ray's: beside other tests its workers would hardly run)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield ray
    ray.shutdown()


class Dying(on_ray.Actor):
    """Dies in the middle of the run, when the sixth part's file is written and nobody knows of it; once."""

    def __call__(self, table: Any) -> dict[str, list[bytes]]:
        answered = super().__call__(table)
        row, died = pickle.loads(answered["row"][0]), self.asked["output"].parent / "died"
        if row.place == 5 and not died.exists():
            died.write_text(row.file, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        return answered


def test_an_actor_is_killed_and_every_row_is_there_once(
    it: Data, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    monkeypatch.setattr(on_ray, "Actor", Dying)
    file = it.parquet(tmp_path / "in.parquet")
    result = dendrofx.map_batches(file, it.path, output=out, batch_size=PER_CALL, workers=2, engine="ray")
    lost = (tmp_path / "died").read_text(encoding="utf-8")
    assert lost.startswith("part-000005-")
    assert not (out / lost).exists()
    assert (result.rows, result.counts) == (332, it.counts)
    assert len(result.files) == 12
    assert {path.name for path in out.iterdir()} == {"_dendrofx.json", *(path.name for path in result.files)}
    assert pyarrow.parquet.read_table(out)["id"].to_pylist() == it.columns["id"].tolist()


def test_answers_are_as_here(it: Data, tmp_path: Path) -> None:
    file = it.parquet(tmp_path / "in.parquet")
    here = dendrofx.map_batches(file, it.path, batch_size=PER_CALL)
    there = dendrofx.map_batches(file, it.path, batch_size=PER_CALL, workers=2, engine="ray")
    assert (there.rows, there.counts) == (here.rows, here.counts)
    assert list(there.answers) == list(here.answers)
    for name, column in here.answers.items():
        np.testing.assert_array_equal(there.answers[name], column)


@pytest.mark.nightly
def test_a_dataset_of_tensors_keeps_its_order_and_its_settings(it: Data, cluster: Any) -> None:
    dataset = cluster.data.from_numpy([p["input"] for p in it.parts()]).rename_columns({"data": "input"})
    dataset = dataset.map_batches(lambda batch: batch, batch_size=None)  # tasks of its own, which take a core
    result = dendrofx.map_batches(dataset, it.path, batch_size=PER_CALL, workers=2, engine="ray")
    np.testing.assert_allclose(result.answers["output"], it.answers, rtol=1e-5, atol=1e-6)
    assert (result.rows, result.counts) == (332, it.counts)
    assert not dataset.context.execution_options.preserve_order
    assert dataset.context.enable_progress_bars


@pytest.mark.nightly
def test_what_does_not_fit_is_refused_as_here(it: Data, cluster: Any, tmp_path: Path) -> None:
    wrong = cluster.data.from_items([{"x": 1.0}])
    with pytest.raises(InputError, match=r"has no column input, but x; .*model.pt takes input: float32\[N, 64\]"):
        dendrofx.map_batches(wrong, it.path, engine="ray")
    with pytest.raises(InputError, match='a Ray Dataset runs on Ray: take engine="ray"'):
        dendrofx.map_batches(wrong, it.path)
    narrow = cluster.data.from_items([{"input": [1.0, 2.0]}])
    with pytest.raises(InputError, match=r"column input is float64\[N, 2\]; .*model.pt takes input: float32\[N, 64\]"):
        dendrofx.map_batches(narrow, it.path, engine="ray")
    with pytest.raises(
        InputError, match=r"the workers take 3 cores, and the Dataset's own tasks one; the Ray cluster has 3"
    ):
        dendrofx.map_batches(narrow, it.path, workers=3, engine="ray")
    file = it.parquet(tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"the workers take 4 cores; .* has 3\. .*ray.init\(num_cpus=4\)"):
        dendrofx.map_batches(file, it.path, workers=2, threads=2, engine="ray")


def test_sums_over_a_dataset_are_those_here(it: Data, cluster: Any, tmp_path: Path) -> None:
    file = it.parquet(tmp_path / "in.parquet")
    dataset, reading = cluster.data.read_parquet(str(file)).repartition(2), Reading(("input",), "float32", SHARES, 0)
    captured = torch.fx.symbolic_trace(made("mlp").model)
    sites = {site.name: site.nodes for site in find_sites(captured)}
    sources = Source(row_groups(file)[0], reading, here=True), Source(dataset, reading, here=False)
    wanted, found = (source.moments(captured, sites) for source in sources)
    assert set(found) == set(wanted) == set(sites)
    for site in sites:
        for moments, own in zip(found[site], wanted[site], strict=True):
            assert moments.count == own.count
            torch.testing.assert_close(moments.scatter, own.scatter, rtol=1e-6, atol=1e-6)


@pytest.mark.nightly
def test_a_calibration_by_a_dataset_is_as_here(it: Data, cluster: Any, tmp_path: Path) -> None:
    model, options = made("mlp").model, dendrofx.Options(tune_seconds=0)
    file = it.parquet(tmp_path / "in.parquet")
    dataset = cluster.data.read_parquet(str(file)).repartition(3)
    here = dendrofx.transform(model, calibration=file, budget=0.05, options=options)
    there = dendrofx.transform(model, calibration=dataset, budget=0.05, options=options)
    assert here.plan.routed
    assert there.plan.origin == here.plan.origin
    x = torch.from_numpy(it.columns["input"])
    torch.testing.assert_close(there(x), here(x), rtol=1e-4, atol=1e-5)
    assert there.forward_counted(x)[1] == here.forward_counted(x)[1]
