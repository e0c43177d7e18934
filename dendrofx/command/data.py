"""Read data as batches of a model's inputs, and write outputs. Nothing is unpickled but by torch's reader of weights."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dendrofx.command.model import Read
from dendrofx.command.parquet import read_parquet
from dendrofx.errors import InputError
from dendrofx.graph.show import first_line
from dendrofx.machine.files import check_target, write_whole
from dendrofx.machine.needed import needed
from dendrofx.values.outputs import flatten

WRITTEN = (".npy", ".npz", ".pt", ".safetensors")


def read_batches(path: Path, size: int, tokenizer: Any = None) -> list[Any]:  # noqa: ANN401  (transformers' tokenizer)
    """Return batches of at most `size` samples, as `transform` takes them.

    Args:
        path: `.npy` is one tensor; `.npz` and `.safetensors` are tensors by the names of inputs, an `.npz` without
            names in their order; `.pt` a tensor, a dict or tuple of them, or a list of batches, which stay as they are; `.parquet`
            columns of numbers, one feature each, or of lists, one input each; `.txt` a text a line.
        size: samples per batch.
        tokenizer: for text.

    Raises:
        InputError: it cannot be read; names the file, what was expected and the next step.
    """
    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": lambda p: _tensor(np.load(p, allow_pickle=False)),
        ".npz": _npz,
        ".pt": lambda p: torch.load(p, map_location="cpu", weights_only=True),
        ".safetensors": _safetensors,
        ".parquet": read_parquet,
    }
    if not path.is_file():
        raise InputError(f"cannot read the data {path}: there is no such file")
    if path.suffix == ".txt":
        return _texts(path, size, tokenizer)
    if path.suffix not in readers:
        raise InputError(f"cannot read the data {path}: expected {', '.join(readers)} or .txt. Save it as one of these")
    try:
        found = readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"cannot read {path} as {path.suffix}: {first_line(error)}. Save it again, as tensors alone"
        ) from error
    return found if isinstance(found, list) else _cut(found, size, path)


def read_for(model: Read, path: Path, size: int) -> list[Any]:
    """Return batches for a model, texts by its own tokenizer.

    Raises:
        InputError: see `read_batches`; or a batch by name has not the names of the model's arguments.
    """
    batches = read_batches(path, size, model.tokenizer)
    for batch in batches:
        check_names(batch, path, model.module)
    return batches


def check_names(batch: Any, path: Path, model: nn.Module) -> None:  # noqa: ANN401  (what is no dict has no names)
    """Raise `InputError` where a batch by name has not the names of a model's arguments."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    if not isinstance(batch, Mapping) or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    takes = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    needs = [p.name for p in parameters if p.name in takes and p.default is p.empty]
    if set(batch) - set(takes) or set(needs) - set(batch):
        raise InputError(
            f"{path} holds {', '.join(batch)}; {type(model).__name__} takes {', '.join(takes)}: name the data as the arguments"
        )


def check_output(path: Path) -> None:
    """Raise `InputError` where outputs cannot be written."""
    if path.suffix not in WRITTEN:
        raise InputError(f"cannot write {path}: its name must end in {', '.join(WRITTEN)}")
    check_target(path)


def write_outputs(path: Path, answers: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Write the outputs of all batches as one, and return their shapes by name.

    Raises:
        InputError: outputs of two batches that cannot be joined, or several for `.npy`.
    """
    if not answers:
        raise InputError(f"cannot write {path}: there are no samples in the data")
    tensors, names = [flatten(a)[0] for a in answers], flatten(answers[0])[1].names
    try:
        made = {name: torch.cat([t[i] for t in tensors]) for i, name in enumerate(names)}
    except RuntimeError as error:
        raise InputError(
            f"outputs of two batches cannot be joined: {first_line(error).rstrip('.')}. Take --batch as large as the data"
        ) from error
    if path.suffix == ".npy" and len(made) > 1:
        raise InputError(f"cannot write {path}: there are several outputs, {', '.join(made)}. Take .npz")
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, next(iter(made.values())).numpy())
    elif path.suffix == ".npz":
        np.savez(buffer, **{name: t.numpy() for name, t in made.items()})  # type: ignore[arg-type]
    elif path.suffix == ".pt":
        torch.save(made, buffer)
    else:
        buffer.write(needed("safetensors.torch", path, "safetensors").save(made))
    write_whole(path, buffer.getvalue())
    return {name: tuple(t.shape) for name, t in made.items()}


def _tensor(array: Any) -> Tensor:  # noqa: ANN401
    return torch.from_numpy(np.ascontiguousarray(array))


def _npz(path: Path) -> Any:  # noqa: ANN401
    """Return arrays by name, or where numpy named them, `arr_0` and so on, in their order."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: _tensor(arrays[name]) for name in arrays.files}
    ordered = [f"arr_{i}" for i in range(len(found))]
    return tuple(found[name] for name in ordered) if found and set(ordered) == set(found) else found


def _safetensors(path: Path) -> dict[str, Tensor]:
    made: dict[str, Tensor] = needed("safetensors.torch", path, "safetensors").load_file(path)
    return made


def _texts(path: Path, size: int, tokenizer: Any) -> list[Any]:  # noqa: ANN401
    if tokenizer is None:
        raise InputError(f"{path} is text: that needs a model's folder with a tokenizer (run: --tokenizer FOLDER)")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no text: write a text a line")
    cut = [lines[i : i + size] for i in range(0, len(lines), size)]
    return [dict(tokenizer(part, padding=True, truncation=True, return_tensors="pt")) for part in cut]


def _cut(found: Any, size: int, path: Path) -> list[Any]:  # noqa: ANN401
    """Return a tensor, or a dict or tuple of tensors with as many samples each, in batches."""
    parts = list(found.values()) if isinstance(found, Mapping) else list(found) if isinstance(found, tuple) else [found]
    if not parts or not all(isinstance(t, Tensor) and t.dim() > 0 for t in parts):
        raise InputError(
            f"{path} holds a {type(found).__name__}: expected a tensor, or tensors by name, samples on the first axis"
        )
    if len({t.size(0) for t in parts}) > 1:
        raise InputError(
            f"{path} holds tensors of {', '.join(str(t.size(0)) for t in parts)} samples: expected as many of each"
        )
    pieces = list(zip(*(t.split(size) for t in parts), strict=True))
    if isinstance(found, Mapping):
        return [dict(zip(found, piece, strict=True)) for piece in pieces]
    return pieces if isinstance(found, tuple) else [piece[0] for piece in pieces]
