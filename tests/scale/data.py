"""What the tests of runs over datasets share: a saved module that routes, its rows with ids, and what one pass over them gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dendrofx
from dendrofx.values.counts import Counts, add_counts
from tests.made import made

PER_PART, PER_CALL = 30, 16  # 332 rows: 12 parts, the last of 2 rows; calls of 16, 14 and 2


@dataclass(frozen=True)
class Data:
    """A dataset and what becomes of it.

    Attributes:
        path: of the saved module.
        columns: `input`, `id` and `name`.
        answers: of its rows, in their order.
        counts: of one pass over them, by parts and calls.
    """

    path: Path
    columns: dict[str, Any]
    answers: np.ndarray
    counts: Counts

    def parts(self) -> list[dict[str, Any]]:
        rows = len(self.answers)
        return [{n: c[i : i + PER_PART] for n, c in self.columns.items()} for i in range(0, rows, PER_PART)]

    def parquet(self, file: Path, first: int = 0, last: int | None = None) -> Path:
        """Write rows as a file with a row group per part."""
        import pyarrow
        import pyarrow.parquet

        file.parent.mkdir(exist_ok=True)
        cut = {n: list(c[first:last]) for n, c in self.columns.items()}
        pyarrow.parquet.write_table(pyarrow.table(cut), file, row_group_size=PER_PART)
        return file


def data(where: Path) -> Data:
    """Save the module and answer its rows, call by call."""
    module, rows = made("mlp").module, made("mlp").rows
    dendrofx.save(module, where / "model.pt")
    answers, counts = [], Counts()
    for part in rows.split(PER_PART):
        for batch in part.split(PER_CALL):
            output, executed = module.forward_counted(batch)
            add_counts(counts, executed)
            answers.append(output.detach())
    n = len(rows)
    columns = {"input": rows.numpy(), "id": np.arange(n) + 1000, "name": np.array([f"row {i}" for i in range(n)])}
    return Data(where / "model.pt", columns, torch.cat(answers).numpy(), counts)
