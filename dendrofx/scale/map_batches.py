"""`map_batches`: a saved module on every row of a dataset, by workers here or on many machines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from dendrofx.errors import InputError
from dendrofx.machine.progress import progress
from dendrofx.scale import on_ray
from dendrofx.scale.folder import claimed
from dendrofx.scale.local import run_here
from dendrofx.scale.parts import check_columns, given, row_groups
from dendrofx.scale.result import MapResult, finish, result_of
from dendrofx.scale.worker import Worker, digest
from dendrofx.version import VERSION

Engine = Literal["local", "ray"]


def map_batches(
    dataset: Any,  # noqa: ANN401  (a path, a Ray Dataset, or dicts)
    path: str | Path,
    *,
    output: str | Path | None = None,
    batch_size: int = 256,
    workers: int = 1,
    threads: int = 1,
    engine: Engine = "local",
) -> MapResult:
    """Run a saved module on every row of a dataset.

    A dataset is answered in parts: a row group of a Parquet file, a block of a Ray Dataset, or one dict. A part that a dying actor
    had is done again, and its answers count once. Columns have the names of the module's inputs; a list of one length in each row
    is [N, length], and numbers are cast to the input's dtype, where it can hold them. Other columns, such as ids, are carried
    through.

    Args:
        dataset: a Parquet file or a folder of them; a Ray Dataset; or, here, an iterable of dicts of arrays or tensors.
        path: of a TorchScript file that `save` wrote. With Ray, it and a folder of data must be at the same path on every machine.
        output: a folder, empty or not yet there: one Parquet file per part, and at the end the manifest `_dendrofx.json`, without
            which the run did not end. None returns the answers as arrays. With Ray, all machines must see it at this path.
        batch_size: most rows per call; no call spans two parts.
        workers: threads here, sharing one module; with Ray actors, each with its own.
        threads: of each worker, `torch.set_num_threads`.
        engine: "local" or "ray" (extra `ray`): in the cluster that the process is connected to, else one that Ray starts here.

    Returns:
        A result with `rows`, `counts` (summed, see `RoutedModule`), `files`, `seconds`, and without `output=` the `answers`,
        columns by name in the order of the data.

    Raises:
        InputError: a column is missing or is no such input, with what the file takes; `output` holds something, or another run has
            it; the cluster has too few cores; a package is missing, with its extra. What was written until then stays, without a
            manifest.
        ArtifactError: see `load`.

    Example:
        >>> batches = [{"x": torch.randn(100, 64), "id": torch.arange(100)}]
        >>> result = dendrofx.map_batches(batches, "model.pt", batch_size=64)
        >>> result.answers["output"].shape
        (100, 4)
    """
    _check(engine, batch_size=batch_size, workers=workers, threads=threads)
    first = Worker(path, threads, batch_size)
    parts = _parts(dataset, engine, first)
    asked: dict[str, Any] = {"path": str(Path(path).absolute()), "threads": threads, "batch_size": batch_size}
    asked["sha256"] = digest(path)
    total = len(parts) if isinstance(parts, list) else None
    with claimed(output) as folder:
        start = time.perf_counter()
        if engine == "ray":
            asked["output"] = None if folder is None else folder.absolute()
            made = on_ray.run_on_ray(parts, asked, workers, threads)
        else:
            first.output = folder
            made = run_here(first, parts, workers)
        rows = list(progress(made, "answering parts", "part", total))
        result = result_of(rows, folder, time.perf_counter() - start, total)
        if folder is not None:
            module = {"name": Path(path).name, "sha256": asked["sha256"]}
            run = {"engine": engine, "workers": workers, "threads": threads, "batch_size": batch_size}
            finish(result, folder, rows, {"versions": _versions(engine), "module": module, **run})
    return result


def _check(engine: str, **numbers: int) -> None:
    if engine not in get_args(Engine):
        raise InputError(f"engine is 'local' or 'ray', got {engine!r}")
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{name} is a whole number of at least 1, got {number!r}")


def _parts(dataset: Any, engine: Engine, worker: Worker) -> Any:  # noqa: ANN401
    """Return row groups as a list, other parts as an iterator, or a Ray Dataset as it is; check the columns that are known."""
    names = [i.name for i in worker.inputs]
    if isinstance(dataset, str | Path):
        groups, columns = row_groups(dataset)
        check_columns(columns, names, str(dataset), worker.path, worker.takes)
        return groups
    if on_ray.is_dataset(dataset):
        if engine != "ray":
            raise InputError('a Ray Dataset runs on Ray: take engine="ray"')
        if (known := on_ray.known_columns(dataset)) is not None:
            check_columns(known, names, "the Dataset", worker.path, worker.takes)
        return dataset
    if engine == "ray" or not isinstance(dataset, Iterable):
        also = "" if engine == "ray" else ", or an iterable of dicts of arrays or tensors"
        raise InputError(
            f'engine="{engine}" takes a Parquet file or folder{also or " or a Ray Dataset"}, got {type(dataset).__name__}'
        )
    return given(dataset)


def _versions(engine: Engine) -> dict[str, str]:
    names = ["torch", "pyarrow", *(["ray"] if engine == "ray" else [])]
    return {"dendrofx": VERSION, **{name: str(import_module(name).__version__) for name in names}}
