"""Recording rows: of all sites at once and a few at a time alike, and no further than needed."""

import pytest
import torch
from torch import nn

import dendrofx
from dendrofx.graph.capture import capture
from dendrofx.graph.find_sites import find_sites
from dendrofx.graph.record import node_values, record_in_turn, record_rows
from dendrofx.values.inputs import Inputs
from tests.models import Residual
from tests.recorded import rows

SETS = [[Inputs.of(rows(300, i)) for i in range(2)], [Inputs.of(rows(40, 2))]]


@pytest.mark.parametrize(("most_bytes", "held"), [(1, 1), (300_000, 2), (2**30, 3)])
def test_a_few_sites_at_a_time_get_the_rows_that_all_at_once_get(
    most_bytes: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dendrofx.graph.record.MOST_BYTES", 150_000)  # so that rows are left out
    monkeypatch.setattr("dendrofx.graph.record.GROUP_BYTES", most_bytes)
    gm = capture(Residual(64, 256).eval())
    sites = list(find_sites(gm))
    wanted = [record_rows(gm, sites, batches, 0) for batches in SETS]
    assert len(wanted[0].rows[sites[0].name]) < 600
    turns = list(record_in_turn(gm, sites, SETS, 0))
    assert [site.name for site, _ in turns] == [site.name for site in sites]
    for site, recorded in turns:
        for one, all_sites in zip(recorded, wanted, strict=True):
            assert torch.equal(one.rows[site.name], all_sites.rows[site.name])
            assert one.per_sample[site.name] == all_sites.per_sample[site.name]
    assert max(len(r[0].rows) for _, r in turns) == held


def test_a_graph_runs_no_further_than_the_last_node_that_is_asked_for() -> None:
    called: list[str] = []

    class Noted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    gm = capture(Noted().eval())
    for name in ("first", "second"):
        gm.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    values = node_values(gm, ["first"], Inputs.of(torch.ones(2, 4)))
    assert called == ["first"]
    assert values["first"].shape == (2, 4)
    with pytest.raises(dendrofx.InputError, match=r"^the model rejects .*float32\[2, 3\].*: mat1 and mat2 shapes"):
        node_values(gm, ["first"], Inputs.of(torch.ones(2, 3)))
