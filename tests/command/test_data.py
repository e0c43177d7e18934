"""Data of every kind on disk, as batches; and models that are not a callable."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dendrofx.command.data import check_names, read_batches, write_outputs
from dendrofx.command.model import read_model
from dendrofx.errors import InputError
from tests.models import compressible

X, IDS = torch.randn(10, 4), torch.arange(30).view(10, 3)


def test_arrays_are_cut_into_batches(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    np.savez(tmp_path / "x.npz", x=X.numpy(), ids=IDS.numpy())
    torch.save((X, IDS), tmp_path / "x.pt")
    torch.save([X, X[:3]], tmp_path / "batches.pt")
    alone = read_batches(tmp_path / "x.npy", 4)
    assert [len(b) for b in alone] == [4, 4, 2]
    assert torch.equal(torch.cat(alone), X)
    named = read_batches(tmp_path / "x.npz", 8)
    assert [sorted(b) for b in named] == [["ids", "x"]] * 2
    assert torch.equal(named[1]["ids"], IDS[8:])
    assert [type(b) for b in read_batches(tmp_path / "x.pt", 10)] == [tuple]
    assert [len(b) for b in read_batches(tmp_path / "batches.pt", 2)] == [10, 3]


def test_arrays_go_to_arguments_by_name_or_in_order(tmp_path: Path) -> None:
    model = torch.nn.Bilinear(4, 3, 2)  # input1, input2
    np.savez(tmp_path / "named.npz", x=X.numpy(), input2=IDS.numpy())
    (batch,) = read_batches(tmp_path / "named.npz", 10)
    with pytest.raises(InputError, match=r"holds x, input2; Bilinear takes input1, input2: name the data as"):
        check_names(batch, tmp_path / "named.npz", model)
    np.savez(tmp_path / "x.npz", X.numpy(), IDS.numpy())
    (batch,) = read_batches(tmp_path / "x.npz", 10)
    check_names(batch, tmp_path / "x.npz", model)
    assert [torch.equal(a, b) for a, b in zip(batch, (X, IDS), strict=True)] == [True, True]


def test_outputs_come_back_as_they_were_written(tmp_path: Path) -> None:
    kinds = [".npz", ".pt", *([".safetensors"] if importlib.util.find_spec("safetensors") else [])]
    for kind in kinds:
        shapes = write_outputs(tmp_path / f"o{kind}", [{"x": X, "ids": IDS}, {"x": X, "ids": IDS}])
        assert shapes == {"x": (20, 4), "ids": (20, 3)}
        (batch,) = read_batches(tmp_path / f"o{kind}", 20)
        assert torch.equal(batch["x"], torch.cat([X, X]))
    with pytest.raises(InputError, match=r"several outputs, x, ids\. Take \.npz"):
        write_outputs(tmp_path / "o.npy", [{"x": X, "ids": IDS}])


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_are_not_unpickled(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    for name in ("x.pt", "x.npy"):
        with pytest.raises(InputError, match="Save it again, as tensors alone"):
            read_batches(tmp_path / name, 4)
    assert not (tmp_path / "sprung").exists()


def test_an_exported_program_is_a_model(tmp_path: Path) -> None:
    model, x = compressible().eval(), torch.randn(4, 64)
    torch.export.save(
        torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), tmp_path / "m.pt2"
    )
    read = read_model(str(tmp_path / "m.pt2")).module
    torch.testing.assert_close(read(torch.cat([x, x])), model(torch.cat([x, x])))
    assert not read.training
    (tmp_path / "n.pt2").write_bytes(b"no program")
    with pytest.raises(InputError, match=r"Write it with torch\.export\.save"):
        read_model(str(tmp_path / "n.pt2"))
