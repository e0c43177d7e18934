"""Files with bytes changed at random, and files made to run something: refused by name, or the module that was saved."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Tuple  # noqa: UP035

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dendrofx
from dendrofx import ArtifactError
from tests.archives import Trap, resealed, rewritten
from tests.made import made

X = torch.ones(3, 64)
DIRECTORY = 4000  # bytes at the end, about: what the archive says of its records


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    dendrofx.save(made("nothing-routed").module, path)
    return path


def flipped(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (value or 1)]) + data[place + 1 :]


def inserted(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) * (1 + value % 7) + data[place:]


def left_out(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + data[place + 1 + value :]


def truncated(data: bytes, place: int, value: int) -> bytes:
    return data[:place]


def doubled(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + data[max(place - 16 * value, 0) :]


def loaded_or_refused(read: Callable[[Any], Any], path: Path, error: type[Exception]) -> Any:
    """What a file holds; None where it is refused. Any other error fails the test."""
    try:
        return read(str(path))
    except error as refused:
        said = str(refused)
    assert said
    return None


CHANGES: list[Callable[[bytes, int, int], bytes]] = [flipped, inserted, left_out, truncated, doubled]
WHERE = st.one_of(st.floats(0, 1), st.integers(1, DIRECTORY))  # of the file, or bytes from its end


@settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CHANGES), WHERE, st.integers(0, 255))
def test_changed_bytes_are_refused_or_change_nothing(
    saved: Path, change: Callable[[bytes, int, int], bytes], where: float, value: int
) -> None:
    data = saved.read_bytes()
    place = min(int(where * len(data)), len(data) - 1) if isinstance(where, float) else max(len(data) - where, 0)
    path = saved.with_name("changed.pt")
    path.write_bytes(change(data, place, value))
    loaded = loaded_or_refused(dendrofx.load, path, ArtifactError)
    if loaded is None:
        return
    module = made("nothing-routed").module
    assert torch.equal(loaded(X), module(X))
    assert loaded.plan == module.plan


def beside(path: Path, data: bytes) -> Path:
    """The file with one record more."""
    target = path.with_name("beside.pt")
    target.write_bytes(path.read_bytes())
    with zipfile.ZipFile(target, "a") as made_of:
        made_of.writestr(f"{made_of.namelist()[0].partition('/')[0]}/extra/more.pkl", data)
    return target


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("record", ["/data.pkl", "/constants.pkl", ".debug_pkl", "beside"])
def test_a_pickle_in_a_file_is_not_run(record: str, protocol: int, saved: Path, tmp_path: Path) -> None:
    trap, copy = pickle.dumps(Trap(tmp_path / "sprung"), protocol), tmp_path / "m.pt"
    copy.write_bytes(saved.read_bytes())
    changed = (
        beside(copy, trap) if record == "beside" else rewritten(copy, tmp_path / "t.pt", record, lambda data: trap)
    )
    for read in (dendrofx.load, torch.jit.load):
        for path in (changed, resealed(changed)):
            loaded_or_refused(read, path, ArtifactError if read is dendrofx.load else RuntimeError)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)  # that it would have sprung
    assert (tmp_path / "sprung").exists()


class Written(nn.Module):
    """A script that writes a file while it is loaded, and reads it when it is called."""

    held: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("held", torch.zeros(1))

    @torch.jit.export
    def __getstate__(self) -> Tuple[Tensor, bool]:  # noqa: UP006  (TorchScript reads it)
        return self.held, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, bool]) -> None:  # noqa: UP006
        self.held, self.training = state[0], state[1]
        torch.save(state[0], "sprung")

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file("sprung", False, 4, dtype=torch.uint8)


class Calls(nn.Module):
    """What would need Python."""

    @torch.jit.ignore
    def python(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.python(x)  # type: ignore[no-any-return]


def test_what_a_script_may_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/guides/deployment.md says: it reaches files, some of it while it is loaded, and no Python."""
    monkeypatch.chdir(tmp_path)
    data = torch.jit.script(Written()).save_to_buffer()
    assert not Path("sprung").exists()
    loaded = torch.jit.load(io.BytesIO(data))
    assert Path("sprung").exists()
    assert bytes(loaded(torch.zeros(4, dtype=torch.uint8)).tolist()) == Path("sprung").read_bytes()[:4]
    with pytest.raises(RuntimeError, match="Could not export Python function"):
        torch.jit.script(Calls()).save_to_buffer()
