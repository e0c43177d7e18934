"""What answers a part: the saved module, loaded once, and the file that a part's answers are written to.

A part's file is written whole or not at all, under a name of this attempt alone. What a worker that dies has written is named by no
row that arrives, so it never counts, and the part's next attempt writes another.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dendrofx.artifact.archive import content
from dendrofx.artifact.load import load
from dendrofx.errors import InputError
from dendrofx.graph.show import first_line, last_line
from dendrofx.lowering.script import frozen
from dendrofx.machine.files import write_whole
from dendrofx.scale.columns import as_array, as_table, as_tensor
from dendrofx.scale.parts import Columns, Part, check_columns, row_count
from dendrofx.values.counts import Counts, add_counts
from dendrofx.values.outputs import flatten


@dataclass(frozen=True)
class Row:
    """What a worker says about a part.

    Attributes:
        place: of the part in the dataset; None where the engine does not know.
        attempt: its own name.
        rows: of the part.
        counts: see `forward_counted`; empty of a module that does not count.
        file: that was written, a name in the output folder; empty where none was asked for.
        answers: the columns, where no file was asked for.
    """

    place: int | None
    attempt: str
    rows: int
    counts: Counts
    file: str = ""
    answers: Mapping[str, np.ndarray] = field(default_factory=dict)


class Worker:
    """A saved module that answers parts: the same one on every engine.

    Args:
        path: of the file that `dendrofx.save` wrote.
        threads: for a call.
        batch_size: most rows of a call.
        output: the folder for files; None returns answers in the row.
        sha256: of the file, where another one may stand at `path` on this machine.

    Attributes:
        takes: the inputs in words, `x: float32[N, 64]`.
    """

    def __init__(
        self, path: str | Path, threads: int = 1, batch_size: int = 256, output: Path | None = None, sha256: str = ""
    ) -> None:
        if sha256 and sha256 != digest(path):
            raise InputError(f"{path} is another file on this machine: one file must stand there for all workers")
        loaded = load(path)
        if not isinstance(loaded.scripted, torch.jit.ScriptModule):
            raise InputError(f"{path} is no TorchScript file, which workers run: save the module without format=")
        if not loaded.inputs:
            raise InputError(f"{path} does not say which inputs it takes: save what dendrofx.transform returned")
        self.path, self.threads, self.batch_size, self.output = path, threads, batch_size, output
        self.inputs, self.takes = loaded.inputs, ", ".join(map(str, loaded.inputs))
        self.module = frozen(loaded.scripted)
        self._counts = hasattr(self.module, "forward_counted")

    def __call__(self, part: Part, place: int | None = None) -> Row:
        """Answer a part; raise `InputError`, with what the file takes, where the part is something else."""
        if torch.get_num_threads() != self.threads:  # it holds for one thread of the process
            torch.set_num_threads(self.threads)
        columns, attempt, counts = part.read(), uuid.uuid4().hex, Counts()
        check_columns(list(columns), [i.name for i in self.inputs], str(part), self.path, self.takes)
        inputs = {i.name: self._input(columns[i.name], i, part) for i in self.inputs}
        rows = row_count(columns, part)
        if not rows:
            return Row(place, attempt, 0, counts)
        answers = self._answers(inputs, rows, counts, part)
        extra = {name: column for name, column in columns.items() if name not in inputs}
        if both := sorted(set(extra) & set(answers)):
            raise InputError(f"{part} has a column {both[0]}, and so have the answers of {self.path}: rename it")
        if self.output is None:
            return Row(place, attempt, rows, counts, answers=_arrays(extra | answers, part))
        file = f"part-{attempt}.parquet" if place is None else f"part-{place:06d}-{attempt}.parquet"
        write_whole(self.output / file, _parquet(extra | answers, part))
        return Row(place, attempt, rows, counts, file)

    def _input(self, column: Any, one: Any, part: Part) -> Tensor:  # noqa: ANN401
        try:
            return as_tensor(column, one.dtype, one.axes)
        except InputError as error:
            raise InputError(f"{part}: column {one.name} {error}; {self.path} takes {self.takes}") from error

    def _answers(self, inputs: Mapping[str, Tensor], rows: int, counts: Counts, part: Part) -> dict[str, Any]:
        """Return the outputs by name, batch by batch, and add up what was executed."""
        found: dict[str, list[Tensor]] = {}
        for start in range(0, rows, self.batch_size):
            batch = {name: tensor[start : start + self.batch_size] for name, tensor in inputs.items()}
            for name, output in self._called(batch, counts, part).items():
                if output.dim() == 0 or output.size(0) != min(self.batch_size, rows - start):
                    raise InputError(f"{self.path} returns {name}{list(output.shape)}, which is not one for each row")
                found.setdefault(name, []).append(output)
        try:
            return {name: torch.cat(tensors) for name, tensors in found.items()}
        except RuntimeError as error:
            said = first_line(error).rstrip(".")
            raise InputError(
                f"{part}: outputs of two calls cannot be joined: {said}. Take a larger batch_size"
            ) from error

    def _called(self, batch: Mapping[str, Tensor], counts: Counts, part: Part) -> dict[str, Tensor]:
        try:
            with torch.no_grad():
                output, executed = self.module.forward_counted(**batch) if self._counts else (self.module(**batch), {})
        except (RuntimeError, torch.jit.Error) as error:
            raise InputError(
                f"{part} does not fit {self.path}, which takes {self.takes}: {last_line(error)}"
            ) from error
        add_counts(counts, executed)
        tensors, form = flatten(output)
        return dict(zip(form.names, tensors, strict=True))


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a saved module, in hex."""
    return hashlib.sha256(content(path)).hexdigest()


def _arrays(columns: Columns, part: Part) -> dict[str, np.ndarray]:
    made = {}
    for name, column in columns.items():
        try:
            made[name] = as_array(column)
        except InputError as error:
            also = ". Or take output=, which carries it as it is" if hasattr(column, "null_count") else ""
            raise InputError(f"{part}: column {name} {error}{also}") from error
    return made


def _parquet(columns: Columns, part: Part) -> bytes:
    buffer = io.BytesIO()
    try:
        import_module("pyarrow.parquet").write_table(as_table(columns), buffer)
    except (ValueError, TypeError, NotImplementedError) as error:  # Arrow's own are of these
        raise InputError(f"{part} cannot be written as Parquet: {first_line(error)}") from error
    return buffer.getvalue()
