"""The main row's module in the other formats that `save` writes, loaded again: further rows of the same table.

    rows, missing = format_variants(prepared)
    rows["as onnx"].file_bytes, missing["as aoti"]

They compute by index what TorchScript computes by branches, so that their deviations say whether rows went the same ways.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from dendrofx.artifact.exported import Format
from dendrofx.artifact.load import load
from dendrofx.artifact.save import save
from dendrofx.compare.prepare import Prepared
from dendrofx.compare.variants import Saved, Variant, first_call
from dendrofx.errors import DendrofxError
from dendrofx.graph.show import first_line
from dendrofx.machine.progress import progress

FORMATS: tuple[Format, ...] = ("pt2", "aoti", "onnx")


def format_variants(prepared: Prepared) -> tuple[dict[str, Variant], dict[str, str]]:
    """Write and load the main row's module in every format but TorchScript.

    Returns:
        Rows by name, and by name why a format has none.
    """
    sample = prepared.case.test.batches(1)[0]
    rows, missing = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for format in progress(FORMATS, "saving", "format"):
            name, path = f"as {format}", Path(folder) / format
            try:
                save(prepared.routed, path, format=format)
                made = Saved(load(path))
            except DendrofxError as error:
                missing[name] = first_line(error)
                continue
            rows[name] = Variant(name, made, False, None, path.stat().st_size, first_call(made, sample))
    return rows, missing
