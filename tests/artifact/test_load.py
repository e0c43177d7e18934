"""Saved files read back: called as the model was, with its plan, certificate, versions and inputs."""

import dataclasses
import io
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx import ArtifactError, InputError
from dendrofx.artifact import source
from dendrofx.values.inputs import Inputs
from dendrofx.version import VERSION
from tests.made import made


@pytest.mark.parametrize("kind", ["residual", "no-gate", "cascade", "budget", "padded", "nothing-routed"])
def test_it_is_what_was_saved(kind: str, tmp_path: Path) -> None:
    source, rows = made(kind), Inputs.of(made(kind).rows)
    dendrofx.save(source.module, tmp_path / "m.pt")
    loaded, alone = dendrofx.load(tmp_path / "m.pt"), torch.jit.load(str(tmp_path / "m.pt"))
    assert torch.equal(rows.call(loaded), rows.call(source.module))
    assert torch.equal(rows.call(alone), rows.call(source.module))
    assert loaded.plan == source.plan
    assert (loaded.certificate is None) is (source.plan.certificate is None)
    assert source.plan.summary() in repr(loaded)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    dendrofx.save(made("cascade").module, path)
    return path


def test_it_comes_back_with_its_plan_certificate_versions_and_inputs(saved: Path) -> None:
    module, x = made("cascade").module, made("cascade").rows
    loaded = dendrofx.load(saved)
    assert torch.equal(loaded(input=x), module(input=x))
    assert loaded.certificate == dendrofx.certificate(saved)
    wrote = {"format": "1", "dendrofx": VERSION, "torch": torch.__version__, "python": platform.python_version()}
    assert loaded.versions == wrote
    assert [str(i) for i in loaded.inputs] == ["input: float32[N, 64]"]
    with pytest.raises(InputError, match="was captured with the inputs input"):
        loaded(input=None)


def test_it_is_warm_after_three_calls(saved: Path) -> None:
    loaded, calls, x = dendrofx.load(saved), [], made("cascade").rows
    loaded.register_forward_hook(lambda module, given, out: calls.append(given))
    assert len(loaded.warm(x[:2])) == 3
    assert [len(given) for (given,) in calls] == [2, 2, 2]


def test_axes_that_vary_are_said(tmp_path: Path) -> None:
    dendrofx.save(made("padded").module, tmp_path / "m.pt")
    loaded = dendrofx.load(tmp_path / "m.pt")
    assert [str(i) for i in loaded.inputs] == ["x: float32[N, T, 64]", "mask: int64[N, T]"]


@dataclasses.dataclass
class Out:
    hidden: Tensor
    pooled: Tensor
    note: str = "kept"


class Named(nn.Module):
    """Tensors in a dict and by keyword, a flag, a default that is no plain value, and a class of its own out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, batch: dict[str, Tensor], scale: float = 2.0, dtype: Any = torch.float32, **kwargs: Any) -> Out:
        hidden = self.fc(batch["x"].to(dtype)) * scale + kwargs["shift"]
        return Out(hidden, hidden.mean(1))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("named") / "model.pt", Named().eval()
    given = {"batch": {"x": torch.ones(4, 8)}, "shift": torch.ones(1, 8), "scale": 3.0}
    dendrofx.save(dendrofx.transform(model, given, options=dendrofx.Options(tune_seconds=0)), path)
    return path


def test_it_is_called_and_returns_as_the_model(named: Path) -> None:
    loaded = dendrofx.load(named)
    out = loaded({"x": torch.ones(3, 8)}, scale=3.0, shift=torch.zeros(1, 8))
    assert isinstance(out, Out)
    assert (out.note, out.pooled.shape) == ("kept", (3,))
    assert loaded.output_class == f"{__name__}:Out"
    with pytest.raises(InputError, match=r"cannot leave out scale, which is 2\.0 then"):
        loaded({"x": torch.ones(3, 8)}, shift=torch.zeros(1, 8))


def test_a_class_that_is_not_imported_is_not_imported_for_a_file(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.warns(UserWarning, match=f"Import {__name__} before"):
        loaded = dendrofx.load(named)
    assert __name__ not in sys.modules
    out = loaded({"x": torch.ones(3, 8)}, scale=3.0, shift=torch.zeros(1, 8))
    assert (type(out), out["note"]) == (dict, "kept")


@pytest.mark.slow
def test_torch_alone_runs_it(saved: Path) -> None:
    code = (
        f"import sys, torch; m = torch.jit.load({str(saved)!r}); print(tuple(m(torch.ones(3, 64)).shape));"
        "assert not [n for n in sys.modules if n.startswith('dendrofx')]"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=saved.parent)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("(3, ")


@pytest.mark.parametrize("how", ["written to", "replaced", "no names of open files"])
def test_a_file_that_changes_while_it_is_read(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, rows = made("mlp").module, made("mlp").rows
    path, other = tmp_path / "model.pt", tmp_path / "other.pt"
    dendrofx.save(module, path)
    other.write_bytes(b"another file")
    load, read = torch.jit.load, []

    def changing(given: Any, **options: Any) -> Any:
        read.append(given)
        if how == "replaced":
            other.replace(path)
        if how == "written to":
            path.touch()
        return load(given, **options)

    monkeypatch.setattr(torch.jit, "load", changing)
    if how == "no names of open files":
        monkeypatch.setattr(source, "OPEN_FILES", tmp_path)
    if how == "written to":
        with pytest.raises(ArtifactError, match="was written to while it was read: load it again"):
            dendrofx.load(path)
    else:
        torch.testing.assert_close(dendrofx.load(path)(rows), module(rows))
    assert isinstance(read[0], io.BytesIO) == (how == "no names of open files" or sys.platform != "linux")
