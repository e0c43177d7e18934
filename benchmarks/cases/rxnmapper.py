"""A real model whose one layer is called twelve times: rxnmapper's ALBERT, on reactions that are written here."""

from __future__ import annotations

from benchmarks.cases.encoder import encoder_case
from benchmarks.cases.options import CaseOptions
from benchmarks.models import rxnmapper as model
from dendrofx.compare.case import Case


def rxnmapper(options: CaseOptions) -> Case:
    """256 calibration reactions and the others for testing; the reactions are synthetic, the weights are not."""
    ids = model.tokenize(model.synthetic_reactions())
    title = "rxnmapper 0.4.3 (one ALBERT layer, 256 wide, called 12 times), mean-pooled, on synthetic reactions"
    return encoder_case("rxnmapper", title, model.load_model(), ids[:256], ids[256:], options, synthetic=True)
