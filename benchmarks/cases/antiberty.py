"""A real protein language model on real sequences: AntiBERTy on antibody germline genes, which are about as long."""

from __future__ import annotations

import torch

from benchmarks.cases.encoder import encoder_case
from benchmarks.cases.options import CaseOptions
from benchmarks.models import antiberty as model
from dendrofx.compare.case import Case


def antiberty(options: CaseOptions) -> Case:
    """Half of the species calibrate, half test."""
    sequences = model.load_sequences()
    species = sorted({s.species for s in sequences})
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(options.seed)).tolist()
    mixed = [sequences[i] for i in order]
    calibration = [s.residues for s in mixed if species.index(s.species) % 2 == 0]
    test = [s.residues for s in mixed if species.index(s.species) % 2 == 1]
    title = "AntiBERTy 0.1.3 (8 layers, 512 wide), mean-pooled embeddings, on germline V genes"
    ids = model.tokenize(calibration), model.tokenize(test)
    return encoder_case("antiberty", title, model.load_model(), ids[0], ids[1], options)
