"""A dataset as parts: what one worker answers in one go, and what is done again where a worker dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dendrofx.errors import InputError
from dendrofx.graph.show import first_line
from dendrofx.machine.needed import needed
from dendrofx.scale.columns import copied

WHAT, EXTRA = "dendrofx.map_batches of Parquet files", "dendrofx[parquet]"
Columns = Mapping[str, Any]  # a dict of arrays or tensors


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file, read by whoever answers it.

    Attributes:
        file: its path.
        group: which of its row groups.
        rows: in it.
    """

    file: str
    group: int
    rows: int

    def __str__(self) -> str:
        return f"row group {self.group} of {self.file}"

    def read(self) -> Columns:
        """Return its columns, as Arrow's; raise `InputError` where the file is damaged."""
        parquet = needed("pyarrow.parquet", WHAT, EXTRA)
        try:
            with parquet.ParquetFile(self.file, page_checksum_verification=True) as file:
                table = file.read_row_group(self.group)
        except (OSError, ValueError, NotImplementedError) as error:  # Arrow's own are of these
            raise InputError(f"cannot read {self}: {first_line(error)}") from error
        return dict(zip(table.column_names, table.columns, strict=True))


@dataclass(frozen=True)
class Given:
    """A part that is in memory: a dict of arrays or tensors, by name."""

    columns: Columns
    place: int

    def __str__(self) -> str:
        return f"batch {self.place} of the dataset"

    def read(self) -> Columns:
        """Return its columns."""
        return self.columns


Part = RowGroup | Given


def row_groups(path: str | Path) -> tuple[list[RowGroup], list[str]]:
    """Return the row groups of a Parquet file, or of all in a folder in the order of their paths, and the names of columns.

    Only the footers are read. Files and folders whose names begin with `_` or `.` are left out.

    Raises:
        InputError: there are none, one is damaged, has two columns of one name, or has not the columns of the first.
    """
    parquet = needed("pyarrow.parquet", WHAT, EXTRA)
    found: list[RowGroup] = []
    names: list[str] = []
    for file in _files(Path(path)):
        try:
            metadata = parquet.read_metadata(file)
            own = metadata.schema.to_arrow_schema().names
        except Exception as error:  # Arrow's own, of several kinds
            raise InputError(f"cannot read {file} as Parquet: {error}") from error
        check_names(own, str(file))
        names = names or own
        if own != names:
            raise InputError(
                f"{file} has the columns {', '.join(own)}, the first file {', '.join(names)}: write the same"
            )
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        found += [RowGroup(str(file.absolute()), i, n) for i, n in enumerate(rows) if n]
    return found, names


def given(batches: Iterable[Any]) -> Iterator[Given]:
    """Return the batches of an iterable as parts, copied: they are answered later, when a loader may have filled its arrays again.

    Raises:
        InputError: one is no dict of columns.
    """
    for i, batch in enumerate(batches):
        if not isinstance(batch, Mapping):
            raise InputError(
                f"batch {i} of the dataset is {type(batch).__name__}: give dicts of arrays or tensors by the names of inputs"
            )
        yield Given({name: _copied(name, column, i) for name, column in batch.items()}, i)


def check_names(names: Sequence[str], where: str) -> None:
    """Raise `InputError` where two columns have one name: a dict would hold the last alone."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{where} has several columns {twice[0]}: rename them")


def check_columns(has: Sequence[str], takes: Sequence[str], where: str, file: str | Path, said: str) -> None:
    """Raise `InputError` where a dataset lacks the column of an input.

    Args:
        has: names of its columns.
        takes: names of the inputs.
        where: the dataset, for the message.
        file: the saved module, likewise.
        said: its inputs in words.
    """
    if missing := [name for name in takes if name not in has]:
        raise InputError(
            f"{where} has no column {', '.join(missing)}, but {', '.join(has) or 'none'}; {file} takes {said}. Name the columns as"
            " the inputs"
        )


def row_count(columns: Columns, part: Part) -> int:
    """Return how many rows a part's columns have; raise `InputError` where they have not the same number."""
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"{part} has columns of several lengths: {', '.join(f'{n} {s}' for n, s in sizes.items())}")
    return next(iter(sizes.values()))


def _copied(name: object, column: Any, place: int) -> Any:  # noqa: ANN401
    if not isinstance(name, str):
        raise InputError(f"batch {place} of the dataset has a column {name!r}: name columns by strings")
    try:
        return copied(column)
    except InputError as error:
        raise InputError(f"batch {place} of the dataset: column {name} {error}") from error


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [p for p in sorted(path.rglob("*.parquet")) if not any(q[0] in "_." for q in p.relative_to(path).parts)]
    if not files:
        raise InputError(f"cannot read the data {path}: there is no such file, and no folder of .parquet files")
    return files
