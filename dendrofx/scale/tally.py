"""What is asked of a dataset part by part, and added up: which samples are kept, and statistics of them all.

A worker knows the set that a sample is dealt to by the sample itself, so it needs nothing but its part, and statistics are of the
fitting samples alone, or of the choosing ones, wherever they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from dendrofx.errors import InputError
from dendrofx.graph.pickling import unpacked
from dendrofx.graph.show import first_line
from dendrofx.graph.site_moments import site_moments
from dendrofx.rewriting.score_counts import score_counts
from dendrofx.scale.columns import as_tensor, cast
from dendrofx.scale.parts import Part, check_columns, row_count
from dendrofx.statistics.sample import Sample, dealt, sample_keys
from dendrofx.values.drop_in import call_form
from dendrofx.values.inputs import Inputs

FIT, CHOOSE = 0, 2  # which of the sets
SAMPLES_PER_CALL = 64


@dataclass(frozen=True)
class Reading:
    """How a dataset's columns become samples of the sets.

    Attributes:
        takes: the columns that are read.
        floats: dtype that floating-point columns are cast to, "float32".
        shares: of the sets, but for the last.
        seed: of the deal.
    """

    takes: tuple[str, ...]
    floats: str
    shares: tuple[float, ...]
    seed: int

    def columns(self, part: Part) -> dict[str, Tensor]:
        """Read a part; raise `InputError` where a column is missing, or no tensor can be made of it."""
        found, made = part.read(), {}
        check_columns(list(found), self.takes, str(part), "the model", ", ".join(self.takes))
        for name in self.takes:
            try:
                tensor = as_tensor(found[name], None, None)
                made[name] = cast(tensor, getattr(torch, self.floats)) if tensor.is_floating_point() else tensor
            except InputError as error:
                raise InputError(f"{part}: column {name} {error}") from error
        row_count(made, part)
        return made


@dataclass(frozen=True)
class Draw:
    """The samples that are kept of each set.

    Attributes:
        sets: of them.
        checksum: of all samples, kept or not, in any order: a sum of their keys.
    """

    sets: tuple[Sample, ...]
    checksum: int

    def __add__(self, other: Draw) -> Draw:
        return Draw(
            tuple(a + b for a, b in zip(self.sets, other.sets, strict=True)),
            (self.checksum + other.checksum) % 2**64,
        )


@dataclass(frozen=True)
class BySite:
    """Sums by site, of one or several things each."""

    values: Mapping[str, tuple[Any, ...]]

    def __add__(self, other: BySite) -> BySite:
        return BySite(
            {n: tuple(a + b for a, b in zip(of, other.values[n], strict=True)) for n, of in self.values.items()}
        )


class Drawing:
    """Chooses samples of a part.

    Args:
        reading: of the columns.
        most: samples that are kept, by set.
    """

    def __init__(self, reading: Reading, most: Sequence[int]) -> None:
        self.reading, self.most = reading, most

    def __call__(self, part: Part, place: int | None = None) -> Draw | None:
        """Return what is kept of a part; None of one without rows."""
        del place
        columns = self.reading.columns(part)
        keys = sample_keys(columns, self.reading.seed)
        if not len(keys):
            return None
        own = dealt(keys[:, 0], self.reading.shares)
        index = [(own == i).nonzero().squeeze(1) for i in range(len(self.most))]
        sets = (
            Sample.of(keys[i, 1], {name: column[i] for name, column in columns.items()}, most)
            for i, most in zip(index, self.most, strict=True)
        )
        return Draw(tuple(sets), sum(keys[:, 1].tolist()) % 2**64)


class Measuring:
    """Runs a module on the samples of one set in a part, and adds up what is asked of them.

    Args:
        reading: of the columns.
        module: pickled, as `graph.pickling.packed` returns it.
        asked: "moments" of the Linears' inputs of `sites`, of the fitting samples; or "scores" of all routed sites, of the choosing
            ones.
        sites: by name, the names of their nodes.
        threads: that it takes.
    """

    def __init__(
        self,
        reading: Reading,
        module: bytes,
        asked: Literal["moments", "scores"],
        sites: Mapping[str, tuple[str, ...]],
        threads: int,
    ) -> None:
        self.reading, self.threads = reading, threads
        self.module: fx.GraphModule = unpacked(pickle.loads(module))
        self.form = call_form(self.module)
        self.set = FIT if asked == "moments" else CHOOSE
        self.measure: Callable[[Inputs], Mapping[str, Any]] = lambda batch: (
            site_moments(self.module, sites, batch)
            if asked == "moments"
            else {site: (of,) for site, of in score_counts(self.module, batch).items()}
        )

    def __call__(self, part: Part, place: int | None = None) -> BySite | None:
        """Return the sums of a part; None where it has no sample of the set."""
        del place
        if torch.get_num_threads() != self.threads:  # it holds for one thread of the process
            torch.set_num_threads(self.threads)
        total: BySite | None = None
        for batch in self._batches(part):
            try:
                found = BySite(self.measure(batch))
            except Exception as error:  # torch's, of many kinds
                raise InputError(f"{part} does not fit the model: {first_line(error)}") from error
            total = found if total is None else total + found
        return total

    def _batches(self, part: Part) -> Iterator[Inputs]:
        """Give the set's samples, as the graph takes them."""
        columns = self.reading.columns(part)
        own = dealt(sample_keys(columns, self.reading.seed)[:, 0], self.reading.shares)
        for index in (own == self.set).nonzero().squeeze(1).split(SAMPLES_PER_CALL):
            if len(index):
                batch = Inputs((), tuple((name, column[index]) for name, column in columns.items()))
                yield batch if self.form is None else self.form.plain(batch)
