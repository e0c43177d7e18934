"""Many digits: one saved module over Parquet files, by one and two workers, here and on Ray.

    pip install -e '.[ray]'
    python examples/scale_out.py 200000

Prints what the guide on scaling out computes with: bytes per row, and rows per second, workers' start included.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

import dendrofx
from benchmarks.models.digits import TRAIN, load_data, load_model

RUNS = [("local", 1), ("local", 2), ("ray", 1), ("ray", 2)]


def write(folder: Path, rows: int) -> int:
    """Write noisy digits with ids in row groups of 10,000, and the module; return the bytes of the digits."""
    images, noise, options = load_data()[0], torch.Generator().manual_seed(0), dendrofx.Options(tune_seconds=0)
    calibration = [images[TRAIN : TRAIN + 600]]
    routed = dendrofx.transform(load_model(), calibration=calibration, budget=0.01, batch_sizes=[256], options=options)
    dendrofx.save(routed, folder / "model.pt")
    picked = images[torch.randint(TRAIN, len(images), (rows,), generator=noise)]
    noisy = (picked + 0.02 * torch.randn(picked.shape, generator=noise)).numpy()
    columns = {"id": np.arange(rows), "x": pa.FixedSizeListArray.from_arrays(noisy.reshape(-1), 64)}
    pq.write_table(pa.table(columns), folder / "in.parquet", row_group_size=10_000)
    return (folder / "in.parquet").stat().st_size


def main(rows: int) -> None:
    """Run every engine twice, in turns, and print the means."""
    with TemporaryDirectory() as where:
        folder, size = Path(where), write(Path(where), rows)
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
        found: dict[tuple[str, int], list[float]] = {run: [] for run in RUNS}
        for i, (engine, workers) in enumerate(2 * RUNS):
            asked = {"output": folder / str(i), "workers": workers, "engine": engine}
            result = dendrofx.map_batches(folder / "in.parquet", folder / "model.pt", **asked)
            found[engine, workers].append(result.seconds)
        written = sum(file.stat().st_size for file in result.files)
        print(f"{rows:,} rows: {size / rows:.0f} bytes each in, {written / rows:.0f} out")
        for (engine, workers), seconds in found.items():
            print(f"{engine}, workers={workers}: {rows / mean(seconds):,.0f} rows/s, {mean(seconds):.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
