"""What a rewrite removed, added and changed, as text."""

import pytest
from torch import nn

import dendrofx
from dendrofx import Prepacked
from dendrofx.graph.capture import capture
from tests.check import after
from tests.made import made
from tests.models import Residual


def test_only_what_differs_is_listed() -> None:
    assert dendrofx.graph_diff(Residual().eval(), after(5, Residual(), select="fc1")).splitlines() == [
        "1 site routed, 3 calls removed, 3 calls added",
        "  graph(x)",
        "    stem = stem(x)",
        "    relu = relu(stem)",
        "-   fc1    = fc1(relu)",
        "-   relu_1 = relu(fc1)",
        "-   fc2    = fc2(relu_1)",
        "+ # site fc1..fc2",
        "+   score = fc1..fc2.gate(relu)",
        "+   if score < tolerance:  # each row",
        "+     fc2 = fc1..fc2.light(relu)",
        "+   else:",
        "+     fc2 = fc1..fc2.full(relu)",
        "+ # end fc1..fc2",
        "    add  = add(relu, fc2)",
        "    head = head(add)",
        "    return head",
    ]


def test_a_module_of_another_class_is_a_change() -> None:
    gm = capture(Residual().eval())
    gm.stem = Prepacked().fit(nn.Linear(16, 16))
    lines = dendrofx.graph_diff(Residual().eval(), gm).splitlines()
    assert lines[0] == "1 module changed"
    assert [line for line in lines if line.startswith("~")] == [
        "~   stem   = stem(x)", f"~     Linear is now {type(gm.stem).__name__}",
    ]  # fmt: skip


def test_graphs_that_are_alike() -> None:
    assert dendrofx.graph_diff(Residual().eval(), capture(Residual().eval())) == "the graphs are alike"
    routed = made("residual").module
    assert dendrofx.graph_diff(routed, routed) == "the graphs are alike"


def test_shapes_do_not_count_and_every_line_fits() -> None:
    it = made("padded")
    lines = dendrofx.graph_diff(made("padded").model, it.module).splitlines()
    assert "    return head" not in lines[1:-1]
    assert max(map(len, lines)) <= 120
    mlp = dendrofx.graph_diff(made("mlp").model, made("mlp").module).splitlines()
    assert mlp[1].startswith("  graph(input_1: f32[N, 64])")  # the captured one has no shapes


def test_what_has_no_graph_is_refused() -> None:
    with pytest.raises(dendrofx.InputError, match="a Linear has no graph to compare: pass what"):
        dendrofx.graph_diff(nn.Linear(2, 2), nn.Linear(2, 2))  # type: ignore[arg-type]
