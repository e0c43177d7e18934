"""MarkRows: every node carries its verdict, and nothing else changes."""

import pytest

from dendrofx.errors import PassError
from dendrofx.graph.show import graph_text
from dendrofx.passes import MarkRows
from dendrofx.rows.analysis import RowAnalysis
from dendrofx.values.meta import ROWS
from tests.check import assert_same_output
from tests.rows.models import Decoder, encoder, padded, symbolic, two_sequences


def test_every_node_carries_its_verdict() -> None:
    model, example = encoder(), padded([5, 2, 3], 5)
    gm = symbolic(model, example)
    before = graph_text(gm)
    result = MarkRows()(gm)
    assert not result.modified
    assert graph_text(gm) == before
    assert_same_output(model, gm, example)
    assert {n: n.meta[ROWS] for n in gm.graph.nodes} == RowAnalysis(gm).notes
    assert sum(n.meta[ROWS].row_wise for n in gm.graph.nodes if n.op == "call_module") == 6


def test_rows_are_those_of_the_mask() -> None:
    gm = symbolic(Decoder(), two_sequences())
    marked = {n.name: n.meta[ROWS].layout for n in MarkRows("source_mask")(gm).graph_module.graph.nodes}
    assert (marked["target"], marked["source"], marked["source_mask"]) == ("b?.", "bt.", "bt")
    assert str(MarkRows("source_mask")) == "MarkRows(mask='source_mask')"


def test_claim_every_node_has_a_verdict() -> None:
    gm = MarkRows()(symbolic(encoder(), padded([5, 2], 5))).graph_module
    del next(n for n in gm.graph.nodes if n.op == "call_module").meta[ROWS]
    with pytest.raises(PassError, match=r"^%layers_0_attention_query has no verdict$"):
        MarkRows().ensures(gm)
