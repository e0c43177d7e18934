"""`report`: measure a transformed module on data, and write what was seen as one offline HTML file."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path
from typing import Any

from torch import nn

from dendrofx.errors import InputError
from dendrofx.machine.files import check_target, write_whole
from dendrofx.report.collect import collect
from dendrofx.report.given import Given
from dendrofx.report.page import page


def report(
    module: nn.Module,
    data: Any,  # noqa: ANN401  (batches as calibration= takes them, or one batch)
    path: str | Path,
    *,
    model: nn.Module | None = None,
    batch_size: int | None = None,
    seconds: float = 10.0,
    seed: int = 0,
) -> Path:
    """Write a report about a transformed module: one HTML file that fetches nothing and can be sent to anyone.

    It has the verdict in a sentence, speed-up against deviation at a few tolerances, the sites with their forms, times and rows, a
    slider that replays recorded scores at other tolerances, the graph before and after, the samples that deviate most, the
    certificate in words, and the machine.

    Args:
        module: what `transform` returned.
        data: batches as `calibration=` takes them, or a single one, that calibration did not see; the first 2,000 samples are used.
        path: of the file; one that is there is replaced.
        model: the original, to compare outputs and times with; by default what the module keeps of it, which may hold exact
            forms and live rows already.
        batch_size: samples of a call; by default the largest that the plan was decided for. Smaller batches are left as they are.
        seconds: rough time for timing. A large model takes longer: about seven settings are scripted, run on all samples, and
            called 15 times at least.
        seed: of the order of turns, and of the random gate that the module's own is set against.

    Returns:
        The path.

    Raises:
        InputError: another module, another model than was transformed, data that cannot be read, or a path that names no file.

    Example:
        >>> routed = dendrofx.transform(model, calibration=batches)
        >>> dendrofx.report(routed, test_batches, "report.html", model=model)
        PosixPath('report.html')
    """
    check_target(path)
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < float(seconds) < math.inf:
        raise InputError(f"seconds is the time for timing, a number above 0, got {seconds!r}")
    found = collect(Given.of(module, data, model, batch_size), float(seconds), seed)
    write_whole(path, page(found))
    return Path(path)
