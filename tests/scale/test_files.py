"""Parquet in and out: row groups, types, what is refused, the manifest, and each row exactly once."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dendrofx
from dendrofx import InputError
from dendrofx.scale import result as results
from tests.scale.data import PER_CALL, Data

pytestmark = pytest.mark.real("pyarrow")


def test_a_folder_of_files_in_and_out(it: Data, tmp_path: Path, out: Path) -> None:
    import pyarrow.parquet

    it.parquet(tmp_path / "in" / "a.parquet", 0, 150)
    it.parquet(tmp_path / "in" / "b.parquet", 150)
    it.parquet(tmp_path / "in" / "_left_out.parquet", 0, 10)
    result = dendrofx.map_batches(tmp_path / "in", it.path, output=out, batch_size=PER_CALL, workers=2)
    assert (result.rows, result.counts, result.answers) == (332, it.counts, {})
    assert len(result.files) == 12
    table = pyarrow.parquet.read_table(out)  # in the order of the files' names
    assert table.column_names == ["id", "name", "output"]
    assert table["id"].to_pylist() == it.columns["id"].tolist()
    assert table["name"].to_pylist() == it.columns["name"].tolist()
    assert str(table["output"].type) == "fixed_size_list<element: float>[8]"
    np.testing.assert_allclose(np.array(table["output"].to_pylist()), it.answers, rtol=1e-5, atol=1e-6)


def test_the_manifest_says_which_files_count_and_what_made_them(it: Data, out: Path) -> None:
    result = dendrofx.map_batches(it.parts(), it.path, output=out, batch_size=PER_CALL)
    said = json.loads((out / "_dendrofx.json").read_text(encoding="utf-8"))
    assert [out / f["name"] for f in said["files"]] == list(result.files)
    assert [f["rows"] for f in said["files"]] == [30] * 11 + [2]
    assert (said["rows"], said["counts"], said["seconds"]) == (332, it.counts, result.seconds)
    assert said["versions"].keys() == {"dendrofx", "torch", "pyarrow"}
    assert said["module"] == {"name": "model.pt", "sha256": dendrofx.scale.worker.digest(it.path)}  # type: ignore[attr-defined]
    assert {path.name for path in out.iterdir()} == {"_dendrofx.json", *(f["name"] for f in said["files"])}


def test_what_no_row_names_is_deleted_before_the_manifest_is_there_and_nothing_else(
    it: Data, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, foreign = results.write_whole, {"part-0.parquet", "notes.txt"}

    def last(path: Path, text: str) -> None:
        assert len(list(out.glob("part-*-*"))) == 12
        assert not list(out.glob(".*.part"))
        written(path, text)

    def strays() -> Any:
        for i, part in enumerate(it.parts()):
            if i == 6:
                (out / f"part-000002-{'f' * 32}.parquet").write_bytes(b"of an attempt that died")
                (out / f".{'f' * 32}.part").write_bytes(b"in the middle of writing")
                for name in foreign:
                    (out / name).write_bytes(b"of somebody else")
                (out / "folder").mkdir()
            yield part

    monkeypatch.setattr(results, "write_whole", last)
    dendrofx.map_batches(strays(), it.path, output=out, batch_size=PER_CALL)
    assert {p.name for p in out.iterdir() if not p.name.startswith("part-0000")} == foreign | {
        "folder",
        "_dendrofx.json",
    }


def test_two_runs_have_not_one_folder(it: Data, out: Path) -> None:
    refused = pytest.raises(InputError, match=r"out belongs to a run that has not ended.*delete \.dendrofx-run and")

    def parts() -> Any:
        with refused:
            dendrofx.map_batches(it.parts(), it.path, output=out)
        yield from it.parts()

    assert dendrofx.map_batches(parts(), it.path, output=out).rows == 332
    assert len(list(out.iterdir())) == 13
    with pytest.raises(InputError, match=r"out holds _dendrofx.json: name an empty folder"):
        dendrofx.map_batches(it.parts(), it.path, output=out)
    (out / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to the folder .*file: it is a file"):
        dendrofx.map_batches([], it.path, output=out / "file")


def test_a_run_that_fails_leaves_no_manifest_and_its_folder_is_not_taken_again(it: Data, out: Path) -> None:
    given = [*it.parts()[:3], {"id": np.zeros(3)}]
    with pytest.raises(InputError, match="batch 3 of the dataset has no column input"):
        dendrofx.map_batches(given, it.path, output=out)
    assert not [p for p in out.iterdir() if not p.name.startswith("part-")]
    with pytest.raises(InputError, match=r"out holds .*part-.*: name an empty folder, or one that is not there"):
        dendrofx.map_batches(it.parts(), it.path, output=out)


def test_a_full_disk_ends_the_run(it: Data, out: Path, full_disk: None) -> None:
    with pytest.raises(OSError, match="No space left"):
        dendrofx.map_batches(it.parts(), it.path, output=out)
    assert list(out.iterdir()) == []


def test_without_ray_the_extra_is_named(it: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs ray, which is not installed: pip install 'dendrofx\[ray\]'"):
        dendrofx.map_batches(it.parquet(tmp_path / "in.parquet"), it.path, engine="ray")


def test_lists_tensors_and_types_of_arrow(it: Data, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows, stamps = it.columns["input"], pa.array([1, None, 3] * 110 + [4, 5], pa.timestamp("ms"))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(rows)
    fixed = pa.FixedSizeListArray.from_arrays(rows.reshape(-1), 64)
    large = pa.array(list(rows.astype(np.float64)), pa.large_list(pa.float64()))
    for column in (tensors, fixed, large):
        pyarrow.parquet.write_table(
            pa.table({"input": column, "at": stamps}), tmp_path / "x.parquet", row_group_size=100
        )
        result = dendrofx.map_batches(tmp_path / "x.parquet", it.path, output=tmp_path / str(column.type)[:9])
        table = pyarrow.parquet.read_table(result.files[0].parent)
        assert table["at"].type == stamps.type
        assert table["at"].to_pylist() == stamps.to_pylist()
        np.testing.assert_allclose(np.array(table["output"].to_pylist()), it.answers, rtol=1e-5, atol=1e-6)


def _table(it: Data, **columns: Any) -> dict[str, Any]:
    return {n: list(c) if isinstance(c, np.ndarray) else c for n, c in ({**it.parts()[0], **columns}).items()}


@pytest.mark.parametrize(("column", "message"), [
    ([[0.0] * 64] * 29 + [[0.0] * 63], "column input holds lists of 64 and of 63 values: pad them to one length"),
    ([[0.0] * 64] * 29 + [None], "column input has no value in row 29: fill it in, or leave the row out"),
    ([[0.0] * 64] * 4 + [[0.0] * 63 + [None]] * 26, "column input has no value in row 4"),
    ([["a"] * 64] * 30, "column input holds .*, of which no tensor is made"),
    ([0.0] * 30, r"column input is float64\[N\]; .* takes input: float32\[N, 64\]"),
])  # fmt: skip
def test_what_no_tensor_can_hold_is_refused_by_file_and_row(
    it: Data, column: Any, message: str, tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(_table(it, input=column)), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=f"row group 0 of .*x.parquet: {message}"):
        dendrofx.map_batches(tmp_path / "x.parquet", it.path)


def test_files_that_cannot_be_read_are_refused(it: Data, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(InputError, match=r"there is no such file, and no folder of .parquet files"):
        dendrofx.map_batches(tmp_path / "none", it.path)
    it.parquet(tmp_path / "in" / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"input": [[0.0] * 64]}), tmp_path / "in" / "b.parquet")
    with pytest.raises(InputError, match=r"b.parquet has the columns input, the first file input, id, name"):
        dendrofx.map_batches(tmp_path / "in", it.path)
    (tmp_path / "in" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"cannot read .*b.parquet as Parquet"):
        dendrofx.map_batches(tmp_path / "in", it.path)
    pyarrow.parquet.write_table(pyarrow.table([[1], [2], [3]], names=["id", "x", "id"]), tmp_path / "in" / "b.parquet")
    with pytest.raises(InputError, match=r"b.parquet has several columns id: rename them"):
        dendrofx.map_batches(tmp_path / "in" / "b.parquet", it.path)
    pyarrow.parquet.write_table(pyarrow.table({"x": [1.0]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x.parquet has no column input, but x; .* takes input: float32\[N, 64\]"):
        dendrofx.map_batches(tmp_path / "x.parquet", it.path)


@pytest.mark.parametrize("at", [0.5, None])
def test_a_page_that_is_damaged_is_refused_by_file_and_row_group(it: Data, tmp_path: Path, at: float | None) -> None:
    import pyarrow.parquet

    file, table = tmp_path / "x.parquet", pyarrow.parquet.read_table(it.parquet(tmp_path / "y.parquet"))
    pyarrow.parquet.write_table(table, file, write_page_checksum=True, compression="none", use_dictionary=False)
    found = bytearray(file.read_bytes())
    if at is None:
        found[4:1000] = bytes(996)
    else:
        found[round(at * table.nbytes)] ^= 1
    file.write_bytes(found)
    with pytest.raises(InputError, match=r"cannot read row group 0 of .*x.parquet: "):
        dendrofx.map_batches(file, it.path)


def test_what_is_carried_as_an_array_keeps_its_values(it: Data, tmp_path: Path, out: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    numbers = pyarrow.array([2**53 + 1, None, *range(28)])
    ragged = [[1], [1, 2]] * 15
    table = pyarrow.table(_table(it, id=numbers, name=numbers.dictionary_encode()))
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    answers = dendrofx.map_batches(tmp_path / "x.parquet", it.path).answers
    assert answers["id"].tolist() == answers["name"].tolist() == numbers.to_pylist()
    pyarrow.parquet.write_table(table.append_column("tags", pyarrow.array(ragged)), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"of .*x.parquet: column tags holds lists of 1 and of 2 values.*take output="):
        dendrofx.map_batches(tmp_path / "x.parquet", it.path)
    result = dendrofx.map_batches(tmp_path / "x.parquet", it.path, output=out)
    assert pyarrow.parquet.read_table(result.files[0])["tags"].to_pylist() == ragged
    with pytest.raises(InputError, match=r"batch 0 of .* cannot be written as Parquet: column id, complex128\[30\]: "):
        dendrofx.map_batches([{**it.parts()[0], "id": np.zeros(30, complex)}], it.path, output=tmp_path / "other")


def test_answers_of_one_value_are_plain_columns_and_others_lists() -> None:
    from dendrofx.scale.columns import as_array, as_table

    given = {"a": torch.arange(4), "b": torch.randn(4, 2, 3).bfloat16(), "c": np.array(["x", "y", "z", "w"])}
    table = as_table(given)
    assert [str(t) for t in table.schema.types] == [
        "int64", "fixed_size_list<item: fixed_size_list<item: float>[3]>[2]", "string",
    ]  # fmt: skip
    np.testing.assert_array_equal(as_array(table["b"]), as_array(given["b"]))
