"""Parts by Ray's actors, on all machines of a cluster.

Ray starts an actor again that died, and gives the part that it had to another, as often as it takes. One row arrives for each part:
that of an attempt that ended. Row groups are read by who answers them, so that of Parquet files nothing but names and rows passes
through Ray; the blocks of a Ray Dataset come from wherever they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from dendrofx.errors import DendrofxError, InputError
from dendrofx.machine.needed import needed
from dendrofx.scale.parts import Given, Part, RowGroup, check_names
from dendrofx.scale.worker import Worker

WHAT, EXTRA = "a run on Ray", "dendrofx[ray]"
Asked = Mapping[str, Any]  # what a worker is made with
Make = Callable[..., Callable[[Part, "int | None"], Any]]


class Actor:
    """A worker inside an actor. It is made at its first part: an error in an actor's constructor is tried without end.

    Args:
        asked: what its worker is made with.
        make: its class, which answers parts; what is large among `asked` lies in the cluster's object store.
    """

    def __init__(self, asked: Asked, make: Make = Worker) -> None:
        self.asked, self.make = asked, make
        self.worker: Callable[[Part, int | None], Any] | None = None

    def __call__(self, table: Any) -> dict[str, list[bytes]]:  # noqa: ANN401  (Arrow's)
        """Return a row for each part of a table, or instead the error that ends the run: Ray would pass on its text alone."""
        try:
            made = [self._answer(place, part) for place, part in _parts(table)]
        except DendrofxError as error:
            return {"row": [pickle.dumps(error)]}
        return {"row": [pickle.dumps(row) for row in made]}

    def _answer(self, place: int | None, part: Part) -> Any:  # noqa: ANN401
        if self.worker is None:
            ray = import_module("ray")
            asked = {n: ray.get(v) if isinstance(v, ray.ObjectRef) else v for n, v in self.asked.items()}
            self.worker = self.make(**asked)
        return self.worker(part, place)


def run_on_ray(
    dataset: Any,  # noqa: ANN401
    asked: Asked,
    workers: int,
    threads: int,
    make: Make = Worker,
) -> Iterator[Any]:
    """Yield what a worker makes of each part, as they come; for those of a Dataset whose answers are kept, in its order.

    Args:
        dataset: row groups, or a Ray Dataset, of which each block is a part.
        asked: what a worker is made with.
        workers: actors, each with `threads` CPUs of the cluster.
        threads: for a call.
        make: the workers' class.

    Raises:
        InputError: Ray is not installed, the cluster has too few cores, or as a worker does.
    """
    ray, data = _ray(), needed("ray.data", WHAT, EXTRA)
    groups = isinstance(dataset, Sequence)
    _check_cores(ray.cluster_resources().get("CPU", 0), workers * threads, reads=not groups)
    if groups and not dataset:
        return
    blocks = _as_blocks(data, dataset) if groups else dataset
    answered = blocks.map_batches(
        Actor,
        fn_constructor_args=({n: ray.put(v) if isinstance(v, bytes) else v for n, v in asked.items()}, make),
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=threads,
        batch_size=None,
        batch_format="pyarrow",
    )
    with _context(answered, in_order=not groups and asked.get("output", "") is None):
        for found in answered.iter_rows():
            row = pickle.loads(found["row"])
            if isinstance(row, DendrofxError):
                raise row
            yield row


def is_dataset(value: object) -> bool:
    """Tell a Ray Dataset from other values; Ray is not imported for it."""
    return type(value).__module__.startswith("ray.data.")


def free_cores() -> int:
    """Return the cores of the cluster, but one for a Dataset's own tasks; 1 at least."""
    return max(int(_ray().cluster_resources().get("CPU", 0)) - 1, 1)


def _ray() -> Any:  # noqa: ANN401
    """Return the package, connected to a cluster."""
    ray = needed("ray", WHAT, EXTRA)
    if not ray.is_initialized():
        ray.init()
    return ray


def known_columns(dataset: Any) -> list[str] | None:  # noqa: ANN401
    """Return the names of a Ray Dataset's columns, where it knows them without running; else None."""
    schema = dataset.schema(fetch_if_missing=False)
    return None if schema is None else list(schema.names)


@contextmanager
def _context(dataset: Any, *, in_order: bool) -> Iterator[None]:  # noqa: ANN401
    """Let a Dataset run without Ray's progress bars, and in its order: it shares these settings with those it was made of."""
    context = dataset.context
    options, bars = context.execution_options, context.enable_progress_bars
    kept = options.preserve_order
    context.enable_progress_bars, options.preserve_order = False, kept or in_order
    try:
        yield
    finally:
        context.enable_progress_bars, options.preserve_order = bars, kept


def _as_blocks(data: Any, groups: Sequence[RowGroup]) -> Any:  # noqa: ANN401
    """Return a Dataset with a block for each row group, which says where it is."""
    items = [{"place": i, "group": pickle.dumps(group)} for i, group in enumerate(groups)]
    return data.from_items(items, override_num_blocks=len(items))


def _parts(table: Any) -> list[tuple[int | None, RowGroup | Given]]:  # noqa: ANN401
    """Return the parts of a block: row groups by their places, or the block itself."""
    if table.column_names == ["place", "group"]:
        rows = table.to_pylist()
        return [(row["place"], pickle.loads(row["group"])) for row in rows]
    check_names(table.column_names, "a block of the Dataset")
    return [(None, Given(dict(zip(table.column_names, table.columns, strict=True)), 0))]


def _check_cores(cores: float, wanted: int, *, reads: bool) -> None:
    """Raise `InputError` where actors would wait for cores, or a Dataset's own tasks for them, without end."""
    if wanted + reads > cores:
        also = ", and the Dataset's own tasks one" if reads else ""
        raise InputError(
            f"the workers take {wanted} cores{also}; the Ray cluster has {cores:g}. Take fewer workers or threads, or let Ray have"
            f" more before: ray.init(num_cpus={wanted + reads})"
        )
