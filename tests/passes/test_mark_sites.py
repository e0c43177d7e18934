"""MarkSites: notes on nodes, and nothing else."""

import pytest
import torch

from dendrofx.errors import PassError
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.show import graph_text
from dendrofx.graph.sites import Site
from dendrofx.passes import Change, MarkSites
from dendrofx.values.meta import Note
from tests.check import assert_same_graph, assert_same_output
from tests.models import Mlp, NoBlock, Residual

ELSEWHERE = Site("tail", ("fc1", "fc9"), ("fc1", "fc9"), (16, 16, 16))


def notes(gm: torch.fx.GraphModule) -> dict[str, Note]:
    return {n.name: n.meta["dendrofx"] for n in gm.graph.nodes if "dendrofx" in n.meta}


def test_case_1_every_node_of_a_site() -> None:
    gm = capture(Mlp().eval())
    result = MarkSites(find_sites(gm).found)(gm)
    assert notes(gm) == dict.fromkeys(("fc1", "act", "drop", "fc2"), Note("fc1..fc2", "block"))
    assert result.changed == (Change("fc1..fc2", "marked", ("fc1", "act", "drop", "fc2")),)
    assert result.modified
    assert result.refused == ()


def test_case_2_other_nodes_are_left_alone() -> None:
    gm = capture(Residual().eval())
    MarkSites(find_sites(gm).select("fc1..fc2").found)(gm)
    assert sorted(notes(gm)) == ["fc1", "fc2", "relu_1"]


def test_graph_and_output_stay() -> None:
    model = Residual().eval()
    gm = capture(model)
    MarkSites(find_sites(gm).found)(gm)
    assert_same_graph(gm, capture(model))
    assert_same_output(model, gm, torch.randn(5, 16))


def test_no_sites() -> None:
    gm = capture(NoBlock().eval())
    before = graph_text(gm)
    result = MarkSites(())(gm)
    assert not result.modified
    assert graph_text(gm) == before


def test_unknown_node_is_an_error() -> None:
    with pytest.raises(PassError, match=r"^site 'tail' names node %fc9, which the graph does not have$"):
        MarkSites((ELSEWHERE,))(capture(Mlp().eval()))


def test_claim_is_broken_by_marks_of_others() -> None:
    gm = capture(Residual().eval())
    sites = find_sites(gm)
    MarkSites((sites[0],))(gm)
    with pytest.raises(PassError) as caught:
        MarkSites((sites[2],))(gm)
    assert str(caught.value) == "marked {'stem': ('stem',), 'head': ('head',)}, wanted {'head': ('head',)}"


def test_claim_is_broken_by_sites_that_share_a_node() -> None:
    gm = capture(Mlp().eval())
    (site,) = find_sites(gm)
    with pytest.raises(PassError, match=r"^marked .*, wanted "):
        MarkSites((site, Site("fc1", ("fc1",), ("fc1",), (16, 32))))(gm)
