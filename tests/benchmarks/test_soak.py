"""The soak: it sees rows that are wrong, and none where there are none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dendrofx
from benchmarks.studies.soak import Soak, Truth, loaded, said, soaked, soaked_processes, table
from dendrofx.values.inputs import Inputs
from tests.made import made


def scripted() -> tuple[Any, Truth]:
    module = dendrofx.script(made("mlp").module)
    return module, Truth.of(module, Inputs.of(made("mlp").rows))


def test_every_row_is_right_on_several_threads() -> None:
    module, truth = scripted()
    found = soaked(module, truth, minutes=0.02, threads=3, most=64, seed=0)
    assert found.rows > 0
    assert (found.wrong, found.errors) == (0, [])
    assert "0 wrong" in said(found)
    assert len(table(found).splitlines()) == 12


@pytest.mark.slow
def test_processes_answer_alike(tmp_path: Path) -> None:
    dendrofx.save(made("mlp").module, tmp_path / "m.pt")
    truth = Truth.of(loaded(tmp_path / "m.pt"), Inputs.of(made("mlp").rows))
    found = soaked_processes(tmp_path / "m.pt", truth, 2, 0.02, 2, 64, 0)
    assert (found.wrong, found.errors, len(found.slices)) == (0, [], 10)
    assert found.calls == sum(len(s.ms) for s in found.slices)


def test_a_wrong_row_and_a_thread_that_fails_are_seen() -> None:
    module, truth = scripted()

    class Off(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return module(x) + (0.01 if len(x) > 32 else 0.0)  # type: ignore[no-any-return]

    found = soaked(Off(), truth, minutes=0.02, threads=1, most=64, seed=0)  # type: ignore[arg-type]
    assert found.wrong > 0
    assert not found.holds
    failing = soaked(None, truth, minutes=0.02, threads=1, most=64, seed=0)  # type: ignore[arg-type]
    assert isinstance(failing, Soak)
    assert failing.errors
    assert not failing.holds
