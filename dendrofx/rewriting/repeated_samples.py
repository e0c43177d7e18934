"""Repeated samples: with a mask of dead rows, and at model scope, whole samples that repeat anywhere in the batch run once.

The captured graph is proved to compute each sample on its own (`rows/samples.py`); what other passes made of it since, such as live
rows, then runs on distinct samples (pass DropRepeatedSamples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from dendrofx.errors import InputError
from dendrofx.passes import DropRepeatedSamples, run_passes
from dendrofx.plan.entries import WHOLE_SAMPLES, RepeatedRegion
from dendrofx.rewriting.fresh import fresh
from dendrofx.rewriting.repeated_rows import RepeatedRows
from dendrofx.rows.regions import is_sample_product, sample_macs
from dendrofx.rows.repeat_check import check_repeats
from dendrofx.rows.samples import SampleAnalysis
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import ROWS


def drop_repeated_samples(
    captured: fx.GraphModule, graph: fx.GraphModule, asked: Sequence[str], example: Inputs
) -> tuple[fx.GraphModule, RepeatedRows] | str:
    """Make a new graph module that runs on distinct samples.

    Args:
        captured: with symbolic shapes; left unchanged.
        graph: what is rewritten: the same, or what was made of it; left unchanged.
        asked: names of inputs that repeat; all that carry samples where it is empty.
        example: inputs as the graph takes them.

    Returns:
        The module and what was rewritten, or why that cannot be.

    Raises:
        InputError: inputs are named, but not all that carry samples.
        PassError: the analysis was wrong, which it must not be.
    """
    analysis = SampleAnalysis(captured)
    if asked and set(asked) != set(analysis.batched):
        raise InputError(
            f"repeated_rows={list(asked)}: with dead_rows, and at scope='model', whole samples that repeat are computed once:"
            f" name all of {', '.join(analysis.batched)}, or pass repeated_rows=True"
        )
    if reasons := analysis.refusals:
        return f"a sample's outputs may depend on others: {reasons[0]}"
    products = [n for n in captured.graph.nodes if is_sample_product(n, captured) and analysis.row_wise(n)]
    for node in products:
        node.meta[ROWS] = analysis.notes[node]
    macs = tuple(term for node in products for term in sample_macs(node))
    gm = fresh(graph)
    run_passes(gm, [DropRepeatedSamples(analysis.batched, macs)])
    gm = fresh(gm)
    far = check_repeats(graph, gm, {}, replace(example, shared=analysis.shared))
    groups = {WHOLE_SAMPLES: analysis.batched}
    return gm, RepeatedRows(groups, (RepeatedRegion(WHOLE_SAMPLES, len(products)),), (), far)
