"""Sizes that a graph fixes and its model does not: right at other sizes, or refused by name, in Python and in the artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dendrofx
from dendrofx.graph.capture import capture
from dendrofx.values.guards import broken, from_export, independent
from dendrofx.values.inputs import Inputs
from dendrofx.values.meta import CALL, CAPTURE
from tests.graph.capture.check import loaded, refused
from tests.graph.capture.models import WIDTH, Base

Sizes = tuple[int, ...]


class Joins(Base):
    """Two inputs of sizes of their own; what it does with them is `rule`."""

    def __init__(self, rule: Callable[[Tensor, Tensor], Tensor], checks: bool = False) -> None:
        super().__init__()
        self.rule, self.checks = rule, checks

    def forward(self, q: Tensor, docs: Tensor) -> Tensor:
        if self.checks and not bool(torch.isfinite(q).all()):  # which a trace alone can follow
            raise ValueError("not finite")
        return self.rule(self.mlp(q), docs)


def looped(q: Tensor, docs: Tensor) -> Tensor:
    for i in range(docs.size(0)):
        q = q + docs[i]
    return q


def long(q: Tensor, docs: Tensor) -> Tensor:
    return q * 2 if docs.shape[0] > 11 else q + docs.sum(0)


def odd(q: Tensor, docs: Tensor) -> Tensor:
    return q * 2 if docs.shape[0] % 3 == 1 else q + docs.sum(0)


def fits(q: Tensor, docs: Tensor) -> Tensor:
    if docs.shape[0] != q.shape[0]:
        raise ValueError("of another size")
    return q + docs.sum(0)


def mean_by_len(q: Tensor, docs: Tensor) -> Tensor:
    return q + docs.sum(0) / len(docs)


def by_numel(q: Tensor, docs: Tensor) -> Tensor:
    return q * docs.numel() / docs.shape[0]


def reshaped(q: Tensor, docs: Tensor) -> Tensor:
    return q + docs.reshape(docs.shape[0] * 2, -1).mean()


def plain_list(q: Tensor, docs: Tensor) -> Tensor:
    return q + torch.stack(list(docs)).sum(0) / int(docs.shape[0])


# The rule; the other numbers of documents, beside the example's ten, that have to be right.
RULES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Sizes]] = {
    "len": (mean_by_len, (1, 3, 50)),
    "numel": (by_numel, (1, 3, 50)),
    "reshape": (reshaped, (1, 3, 50)),
    "loop": (looped, ()),
    "branch": (long, (3, 11)),
    "remainder": (odd, (10, 13)),
    "list": (plain_list, ()),
}


def agree(module: Any, model: nn.Module, q: Tensor, docs: Tensor) -> bool:
    """The same bits up to the order of sums; False where the call is refused."""
    try:
        got = module(q, docs)
    except Exception as error:
        if "was captured for" not in str(error):  # in these words, in both forms
            raise
        return False
    torch.testing.assert_close(got, model(q, docs))
    return True


@pytest.mark.parametrize("checks", [False, True], ids=["", "traced"])
@pytest.mark.parametrize("kind", RULES)
@torch.no_grad()
def test_other_sizes_are_right_or_refused(kind: str, checks: bool) -> None:
    rule, right = RULES[kind]
    model = Joins(rule, checks).eval()
    routed = dendrofx.transform(
        model, (torch.randn(6, WIDTH), torch.randn(10, WIDTH)), budget=0, options=dendrofx.Options(decide=False)
    )
    artifact = loaded(routed)
    taken = set()
    for q, docs in ((6, 10), (1, 10), (13, 10), *((4, n) for n in (1, 2, 3, 9, 11, 12, 13, 50))):
        given = torch.randn(q, WIDTH), torch.randn(docs, WIDTH)
        found = agree(routed, model, *given)
        assert agree(artifact, model, *given) is found
        taken |= {docs} if found else set()
    assert 10 in taken
    if not checks:
        assert taken >= set(right)


@torch.no_grad()
def test_where_the_original_raises_the_result_raises() -> None:
    model = Joins(fits).eval()
    routed = dendrofx.transform(
        model, (torch.randn(6, WIDTH), torch.randn(6, WIDTH)), budget=0, options=dendrofx.Options(decide=False)
    )
    scripted = dendrofx.script(routed)
    for size in (1, 4, 9):
        given = torch.randn(size, WIDTH), torch.randn(size, WIDTH)
        assert torch.equal(routed(*given), model(*given))
        assert torch.equal(scripted(*given), model(*given))
    for module in (routed, scripted):
        with pytest.raises(Exception, match=r"captured for docs\.size\(0\) == q\.size\(0\) alone"):
            module(torch.randn(6, WIDTH), torch.randn(4, WIDTH))


def test_the_plan_says_for_which_sizes_it_holds() -> None:
    example = Inputs.of((torch.randn(6, WIDTH), torch.randn(10, WIDTH)))
    captured = capture(Joins(looped).eval(), example).meta[CAPTURE]
    assert captured.guards == ("docs.size(0) == 10",)
    assert str(captured) == "captured by export, equal to the model bit for bit; only for docs.size(0) == 10"


def test_a_calibration_batch_of_another_size_is_named() -> None:
    batches = [(torch.randn(6, WIDTH), torch.randn(10 if i < 5 else 11, WIDTH)) for i in range(8)]
    with pytest.raises(
        dendrofx.InputError, match=r"^calibration batch 5 .*: Joins was captured for docs\.size\(0\) == 10 alone"
    ):
        dendrofx.transform(Joins(looped).eval(), calibration=batches, options=dendrofx.Options(tune_seconds=0))


GUARDS = {
    "L['tensors'][0].size()[1] == 16": "q.size(1) == 16",
    "(L['tensors'][0].size()[0] % 7) != 0": "q.size(0) % 7 != 0",
    "L['tensors'][1].size()[0] == L['tensors'][0].size()[0]": "docs.size(0) == q.size(0)",
    "L['tensors'][0].size()[0] + 2*L['tensors'][1].size()[0] > 20": "q.size(0) + 2 * docs.size(0) > 20",
    "min(2, L['tensors'][0].size()[0], 3) < max(L['tensors'][1].size()[0], 1)": "min(2, q.size(0), 3) < max(docs.size(0), 1)",
    "2 <= L['tensors'][0].size()[0] and -L['tensors'][0].size()[0] < 3": "2 <= q.size(0) and -q.size(0) < 3",
}


@pytest.mark.parametrize("code", GUARDS)
def test_guards_of_torch_are_read(code: str) -> None:
    assert from_export([code, code], ("q", "docs")) == (GUARDS[code],)


def test_a_guard_that_cannot_be_checked_is_refused() -> None:
    says = "the graph holds for `f(q.size(0))` alone, which cannot be checked"
    with refused(says, dendrofx.CaptureError, whole=False):
        from_export(["f(L['tensors'][0].size()[0]) == 2"], ("q",))


def test_a_guard_holds_or_not() -> None:
    given = {"q": torch.zeros(8, 16), "docs": torch.zeros(9, 1)}
    held = {guard: broken([guard], given) is None for guard in GUARDS.values()}
    assert held == dict(zip(GUARDS.values(), (True, True, False, True, True, True), strict=True))
    assert broken(["q.size(2) == 4"], given) is None, "fewer axes than in the example: the graph fails by itself"


def test_equal_sizes_are_no_news() -> None:
    model = Joins(fits).eval()
    gm = capture(model, Inputs.of((torch.randn(6, WIDTH), torch.randn(6, WIDTH))))
    assert gm.meta[CALL].guards == ("docs.size(0) == q.size(0)",)
    assert str(gm.meta[CAPTURE]) == "captured by export, equal to the model bit for bit"


@torch.no_grad()
def test_one_tensor_for_two_inputs_stays_two_inputs() -> None:
    model, x = Joins(lambda q, docs: q - 2 * docs, checks=False).eval(), torch.randn(6, WIDTH)
    for checks in (False, True):
        model.checks = checks
        routed = dendrofx.transform(model, (x, x), budget=0, options=dendrofx.Options(decide=False))
        other = torch.randn(6, WIDTH)
        assert torch.equal(routed(x, other), model(x, other))


FOLLOWING: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("x.size(0) == 32", "x.size(0) // 8 != 1"), ("x.size(0) == 32",)),
    (("a.size(0) == b.size(0)", "a.size(0) * a.size(1) % b.size(0) == 0"), ("a.size(0) == b.size(0)",)),
    (("a.size(0) == b.size(0)", "a.size(0) == 4", "b.size(0) < 9"), ("a.size(0) == b.size(0)", "a.size(0) == 4")),
    (("q.size(0) % 7 != 0",), ("q.size(0) % 7 != 0",)),
    (("q.size(0) <= 9", "q.size(0) <= 9"), ("q.size(0) <= 9",)),
    (("x.size(0) == 4", "x.size(1) % 4 == 0"), ("x.size(0) == 4", "x.size(1) % 4 == 0")),
]


@pytest.mark.parametrize(("guards", "left"), FOLLOWING)
def test_guards_that_follow_from_others_are_left_out(guards: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert independent(guards) == left
