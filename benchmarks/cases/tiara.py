"""A real pretrained MLP on real DNA: tiara's k = 6 classifier."""

from __future__ import annotations

import torch

from benchmarks.cases.options import CaseOptions
from benchmarks.models.tiara import load_fragments, load_model
from dendrofx.compare.case import Case
from dendrofx.compare.samples import Rows
from dendrofx.light import Pruned

BATCHES = 20
CERTIFIED = 33  # fragments of each batch where a budget is certified: 660 show 1 % at 95 %


def tiara(options: CaseOptions) -> Case:
    """Half of the FASTA records calibrate, half test; the fragments of one record stay together.

    Records are windows of 15,000 bases; windows of one genome may stand on both sides, they do not overlap.
    """
    rows, record = load_fragments()
    count = int(record.max()) + 1
    place = torch.randperm(count, generator=torch.Generator().manual_seed(options.seed))[record]
    calibrating = place < count // 2
    batch = place * 2 * BATCHES // count  # whole records per batch
    calibration = [rows[calibrating & (batch == b)] for b in range(BATCHES)]
    if options.certified:
        generator = torch.Generator().manual_seed(options.seed)
        calibration = [b[torch.randperm(len(b), generator=generator)[:CERTIFIED]] for b in calibration]
    others = rows[~calibrating]
    test = others[
        torch.randperm(len(others), generator=torch.Generator().manual_seed(options.seed))
    ]  # mixed kinds per batch
    return Case(
        "tiara",
        "tiara 1.0.2, 4096 -> 2048 -> 1024 -> 5, up to its logits, on its DNA fragments of 5000 bases",
        load_model(),
        calibration,
        Rows(test[:800] if options.quick else test),
        classes=True,
        static={"dead-units": Pruned(energy=1.0)},
    )
