"""What a run returns, and the manifest that it ends with: the files that count, and nothing of attempts that did not end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dendrofx.errors import DendrofxError
from dendrofx.machine.files import write_whole
from dendrofx.scale.folder import delete_others
from dendrofx.scale.joining import joined
from dendrofx.scale.worker import Row
from dendrofx.values.counts import Counts, add_counts

MANIFEST = "_dendrofx.json"
FORMAT = 1


@dataclass(frozen=True)
class MapResult:
    """What `map_batches` returns.

    Attributes:
        rows: that were answered.
        counts: what was executed for them, see `forward_counted`; empty of a module that does not count.
        files: of the answers, in the order of the data where the engine knows it.
        seconds: from the first part to the last, workers' start included.
        answers: the columns by name, in the order of the data, where no files were asked for.
    """

    rows: int
    counts: Counts
    files: tuple[Path, ...]
    seconds: float
    answers: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __str__(self) -> str:
        files = f", {len(self.files)} files in {self.files[0].parent}" if self.files else ""
        return f"{self.rows:,} rows in {self.seconds:.1f} s{files}"


def result_of(found: Iterable[Row], output: Path | None, seconds: float, parts: int | None) -> MapResult:
    """Add up the rows of all parts.

    Args:
        found: in any order.
        output: the folder of their files.
        seconds: that it took.
        parts: how many there must be, by place; None where nobody knows.

    Raises:
        DendrofxError: a part is missing, or there twice.
        InputError: see `joined`.
    """
    rows = sorted(found, key=lambda r: -1 if r.place is None else r.place)
    if parts is not None and [r.place for r in rows] != list(range(parts)):
        raise DendrofxError(
            f"of {parts} parts {len({r.place for r in rows})} came back, in {len(rows)} rows: run it again"
        )
    counts: Counts = {}
    for row in rows:
        add_counts(counts, row.counts)
    files = () if output is None else tuple(output / r.file for r in rows if r.file)
    answers = joined({i if r.place is None else r.place: r.answers for i, r in enumerate(rows) if r.answers})
    return MapResult(sum(r.rows for r in rows), counts, files, seconds, answers)


def finish(result: MapResult, output: Path, rows: Sequence[Row], said: Mapping[str, Any]) -> None:
    """Delete what attempts that did not end have written, then write the manifest, whole: the run is complete where it is there.

    Args:
        result: of the run.
        output: its folder, which it has claimed.
        rows: see `result_of`.
        said: what else the manifest says: versions, the saved module, how it was run.
    """
    delete_others(output, {path.name for path in result.files})
    sizes = {r.file: r.rows for r in rows}
    files = [{"name": path.name, "rows": sizes[path.name]} for path in result.files]
    made = {
        "format": FORMAT,
        **said,
        "rows": result.rows,
        "seconds": result.seconds,
        "counts": result.counts,
        "files": files,
    }
    write_whole(output / MANIFEST, json.dumps(made, indent=1) + "\n")
