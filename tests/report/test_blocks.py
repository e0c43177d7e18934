"""Blocks of a graph, and the folding of those that repeat."""

from dendrofx.report.blocks import Block, block_times, blocks, fold
from tests.made import made


def test_what_repeats_is_folded_and_its_figures_are_means() -> None:
    stack = [b for i in range(3) for b in (Block("8 -> 8", f"layers.{i}.fc", ms=i + 1.0), Block("add", ms=1.0))]
    first, folded, last = fold([Block("embedding"), *stack, Block("8 -> 2", "head")])
    assert (first.times, folded.times, last.times) == (1, 3, 1)
    assert [b.site for b in folded.blocks] == ["layers.*.fc", ""]
    assert [b.ms for b in folded.blocks] == [2.0, 1.0]


def test_a_routed_block_is_not_folded_with_one_that_is_not() -> None:
    folds = fold([Block("", "a.0"), Block("", "a.1", routed=True), Block("", "a.2", routed=True)])
    assert [(f.times, f.blocks[0].routed) for f in folds] == [(1, False), (2, True)]


def test_a_module_is_its_sites_and_what_lies_between() -> None:
    module = made("residual").module
    ms = {n.name: 1.0 for n in module.graph.nodes}
    found = blocks(module, ms, {"head": 0.25})
    assert [(b.site or b.label, b.routed) for b in found] == [
        ("stem", True),
        ("relu", False),
        ("fc1..fc2", True),
        ("add", False),
        ("head", True),
    ]
    assert set(found[0].parts) == {"gate", "light", "full"}
    assert (found[0].ms, found[-1].hard) == (sum(found[0].parts.values()), 0.25)


def test_a_fused_linear_is_set_against_those_that_it_stands_for() -> None:
    parts = [Block("", f"a.{n}", ms=ms) for n, ms in (("q", 1.0), ("k", 2.0), ("v", 4.0))]
    ms = block_times([*parts, Block("add", ms=9.0), Block("", "b.out", ms=8.0)])
    assert (ms["a.q"], ms["a.q_k"], ms["a.q_k_v"], ms["b.out"]) == (1.0, 3.0, 7.0, 8.0)
    assert "a.v_out" not in ms
