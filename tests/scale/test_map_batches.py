"""Runs in this process, on dicts: order, counts, what is carried through, and what is refused."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dendrofx
from dendrofx import DendrofxError, InputError
from dendrofx.scale.local import run_here
from dendrofx.scale.parts import Given
from dendrofx.scale.result import result_of
from dendrofx.scale.worker import Row, Worker
from tests.made import made
from tests.scale.data import PER_CALL, Data


@pytest.mark.parametrize("workers", [1, 3])
def test_answers_and_counts_are_those_of_the_same_calls(it: Data, workers: int) -> None:
    threads = torch.get_num_threads()
    result = dendrofx.map_batches(it.parts(), it.path, batch_size=PER_CALL, workers=workers, threads=2)
    assert torch.get_num_threads() == threads  # the caller's own are as they were
    assert (result.rows, result.counts, result.files) == (332, it.counts, ())
    assert list(result.answers) == ["id", "name", "output"]
    np.testing.assert_array_equal(result.answers["id"], it.columns["id"])
    np.testing.assert_array_equal(result.answers["name"], it.columns["name"])
    np.testing.assert_allclose(result.answers["output"], it.answers, rtol=1e-5, atol=1e-6)
    assert str(result).startswith("332 rows in ")


def test_routes_are_those_of_one_call(it: Data) -> None:
    module = made("mlp").module
    _, counts = module.forward_counted(torch.from_numpy(it.columns["input"]))
    result = dendrofx.map_batches(it.parts(), it.path, batch_size=PER_CALL)
    assert set(result.counts) == set(counts)
    for site, one in counts.items():
        assert one["near_rows"] == 0
        assert 0 < one["hard_rows"] < one["rows"]
        for key in (
            "rows",
            "hard_rows",
            "original_macs",
        ):  # what is executed for light and padding depends on the batch
            assert result.counts[site][key] == one[key]


def test_tensors_are_taken_and_other_dtypes_cast(it: Data) -> None:
    for cast in (lambda x: torch.from_numpy(x).double(), lambda x: x.astype(">f8"), lambda x: x[::-1].copy()[::-1]):
        given = [{"input": cast(p["input"])} for p in it.parts()]
        result = dendrofx.map_batches(iter(given), it.path, batch_size=PER_CALL)
        np.testing.assert_allclose(result.answers["output"], it.answers, rtol=1e-5, atol=1e-6)


def test_a_loader_may_fill_its_arrays_again(it: Data) -> None:
    def parts() -> Iterator[dict[str, Any]]:
        rows, ids = np.empty((2, 64), np.float32), torch.empty(2, dtype=torch.long)
        for i in range(0, 332, 2):
            rows[:], ids[:] = it.columns["input"][i : i + 2], torch.from_numpy(it.columns["id"][i : i + 2])
            yield {"input": rows, "id": ids}

    result = dendrofx.map_batches(parts(), it.path, workers=2)
    np.testing.assert_array_equal(result.answers["id"], it.columns["id"])
    np.testing.assert_allclose(result.answers["output"], it.answers, rtol=1e-5, atol=1e-5)


def test_parts_without_rows_and_no_parts_at_all(it: Data) -> None:
    none = {name: column[:0] for name, column in it.columns.items()}
    result = dendrofx.map_batches([none, *it.parts(), none], it.path, batch_size=PER_CALL)
    assert (result.rows, result.counts) == (332, it.counts)
    assert dendrofx.map_batches([], it.path).rows == 0


class Several(nn.Module):
    """Takes two inputs and returns a dict, an integer output among it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.fc(x) * mask.unsqueeze(-1)
        return {"hidden": y, "best": y.sum(1).argmax(-1)}


def test_several_inputs_and_outputs_go_by_name(tmp_path: Path) -> None:
    x, mask = torch.randn(10, 5, 4), torch.randint(0, 2, (10, 5))
    model = Several().eval()
    module = dendrofx.transform(model, {"x": x, "mask": mask}, options=dendrofx.Options(decide=False, tune_seconds=0))
    dendrofx.save(module, tmp_path / "model.pt")
    result = dendrofx.map_batches([{"mask": mask, "x": x, "id": np.arange(10)}], tmp_path / "model.pt", batch_size=4)
    wanted = module(x=x, mask=mask)
    assert list(result.answers) == ["id", "hidden", "best"]
    np.testing.assert_allclose(result.answers["hidden"], wanted["hidden"].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.answers["best"], wanted["best"].numpy())


class Missing:
    """As a column of pandas' `Int64` is, with a value that is missing."""

    dtype = np.dtype(np.int64)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array([np.nan, *range(29)], dtype)


def _changed(it: Data, **columns: Any) -> dict[str, Any]:
    return {name: c for name, c in ({**it.parts()[0], **columns}).items() if c is not None}


@pytest.mark.parametrize(("columns", "message"), [
    ({"input": None}, r"batch 0 of the dataset has no column input, but id, name; .*model.pt takes input: float32\[N, 64\]"),
    ({"input": np.zeros((30, 32))}, r"column input is float64\[N, 32\]; .*model.pt takes input: float32\[N, 64\]"),
    ({"input": np.zeros((30, 2, 64))}, r"column input is float64\[N, 2, 64\]; .* takes input: float32\[N, 64\]"),
    ({"input": np.zeros((30, 64), complex)}, r"column input is complex128\[N, 64\]"),
    ({"input": np.full((30, 64), "a")}, "column input holds <U1, of which no tensor is made"),
    ({"input": np.full((30, 64), 1e300)}, r"column input holds 1e\+300, which float32 cannot hold; .* takes input: float32"),
    ({"input": np.full((30, 64), 2**40 + 1)}, "column input holds 1099511627777, which float32 cannot hold"),
    ({"input": torch.zeros(30, 64).to_sparse()}, r"dataset: column input is a sparse, nested or"),
    ({"id": torch.zeros(30).to(torch.float8_e4m3fn)}, "column id is torch.float8_e4m3fn, of which no array is made"),
    ({"id": np.ma.masked_equal(np.arange(30), 3)}, "column id has masked values: fill them in"),
    ({"id": Missing()}, "column id holds integers, some of which are missing"),
    ({"id": 5}, "batch 0 of the dataset: column id is one value: give an array with one for each row"),
    ({"id": torch.tensor(5)}, "batch 0 of the dataset: column id is one value"),
    ({"id": [[1], [1, 2]] * 15}, "batch 0 of the dataset: column id is no array: "),
    ({"id": np.zeros(3)}, "columns of several lengths: input 30, id 3, name 30"),
    ({"output": np.zeros(30)}, "has a column output, and so have the answers of .*model.pt: rename it"),
])  # fmt: skip
def test_columns_that_do_not_fit_are_refused_with_what_the_file_takes(it: Data, columns: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dendrofx.map_batches([_changed(it, **columns)], it.path)


@pytest.mark.parametrize(("given", "options", "message"), [
    ([torch.zeros(2, 64)], {}, "batch 0 of the dataset is Tensor: give dicts of arrays or tensors"),
    ([{3: np.zeros(2)}], {}, "batch 0 of the dataset has a column 3: name columns by strings"),
    (3, {}, "takes a Parquet file or folder, or an iterable of dicts of arrays or tensors, got int"),
    ([], {"engine": "spark"}, "engine is 'local' or 'ray', got 'spark'"),
    ([], {"workers": 0}, "workers is a whole number of at least 1, got 0"),
    ([], {"batch_size": 2.5}, "batch_size is a whole number of at least 1, got 2.5"),
    ([], {"engine": "ray"}, 'engine="ray" takes a Parquet file or folder or a Ray Dataset, got list'),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(it: Data, given: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dendrofx.map_batches(given, it.path, **options)


def test_a_missing_package_is_named_with_its_extra(it: Data, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    wanted = r"needs pyarrow, which is not installed: pip install 'dendrofx\[parquet\]'"
    with pytest.raises(InputError, match=wanted):
        dendrofx.map_batches(it.parts(), it.path, output=out)
    with pytest.raises(InputError, match=wanted):
        dendrofx.map_batches("in.parquet", it.path)
    assert not out.exists()


def test_a_file_that_says_nothing_of_its_inputs_is_refused(tmp_path: Path) -> None:
    dendrofx.save(nn.Linear(4, 3).eval(), tmp_path / "plain.pt")
    with pytest.raises(
        InputError, match=r"plain.pt does not say which inputs it takes: save what dendrofx.transform returned"
    ):
        dendrofx.map_batches([], tmp_path / "plain.pt")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    dendrofx.save(made("mlp").module, tmp_path / "model.pt2", format="pt2", example={"input": made("mlp").rows})
    with pytest.raises(
        InputError, match=r"model.pt2 is no TorchScript file, which workers run: save the module without format="
    ):
        dendrofx.map_batches([], tmp_path / "model.pt2")


def test_a_worker_sets_the_threads_of_whoever_calls_it(it: Data) -> None:
    worker = Worker(it.path, threads=2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.set_num_threads, 1).result()
        pool.submit(worker, Given(it.parts()[0], 0)).result()
        assert pool.submit(torch.get_num_threads).result() == 2


def test_another_file_on_a_worker_is_refused(it: Data) -> None:
    with pytest.raises(InputError, match="is another file on this machine"):
        Worker(it.path, sha256="0" * 64)


def test_few_parts_are_read_ahead_and_rows_come_in_order() -> None:
    taken: list[int] = []
    first = threading.Event()

    def parts() -> Iterator[Given]:
        for i in range(20):
            taken.append(i)
            yield Given({}, i)

    def work(part: Any, place: int) -> Row:
        if place == 0:
            assert first.wait(60)  # so that it ends after the second
        else:
            first.set()
        return Row(place, "", 1, {})

    rows = run_here(work, parts(), 2)
    assert next(rows).place == 0
    assert len(taken) == 5
    assert [row.place for row in rows] == list(range(1, 20))


def test_what_a_worker_raises_ends_the_run() -> None:
    begun: list[int] = []

    def work(part: Any, place: int) -> Row:
        begun.append(place)
        if place == 3:
            raise InputError("not this one")
        return Row(place, "", 1, {})

    with pytest.raises(InputError, match="not this one"):
        list(run_here(work, (Given({}, i) for i in range(1000)), 1))
    assert len(begun) < 10


@pytest.mark.parametrize("places", [[0, 2], [0, 1, 1, 2], [0, 1, 2, 3]])
def test_a_part_that_is_missing_or_there_twice_is_no_result(places: list[int]) -> None:
    with pytest.raises(DendrofxError, match=r"^of 3 parts \d came back, in \d rows"):
        result_of([Row(i, "", 1, {}) for i in places], None, 1.0, 3)
