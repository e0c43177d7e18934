"""Hostile calls of small transformed modules, and of their scripts: the original's answer, or an error that says what they take.

`python -m tests.fuzz` makes 100,000 of them, guided by coverage where atheris is installed.
"""

import random
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fuzz.cases import CASES
from tests.fuzz.draws import LENGTH, Call, draw, smallest
from tests.fuzz.judge import REFUSED, WRONG, judge
from tests.fuzz.report import alike
from tests.fuzz.targets import Target, names, targets


@pytest.fixture(autouse=True)
def _torch_warns_of_prototypes() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def named(name: str) -> tuple[int, Target]:
    """A target and its number."""
    return next((i, t) for i, t in enumerate(targets()) if t.name == name)


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=LENGTH // 2, max_size=LENGTH))
def test_a_hostile_call_is_right_or_refused(data: bytes) -> None:
    call = draw(data, names())
    found = judge(call, targets()[call.target])
    assert found.kind != WRONG, f"{targets()[call.target].name}, {call}: {found.text}"


@pytest.mark.parametrize("form", ["eager", "frozen"])
@pytest.mark.parametrize("case", CASES)
def test_what_was_found_is_refused_in_words(case: str, form: str) -> None:
    known = CASES[case]
    number, target = named(f"{known.kind}, {form}")
    found = judge(Call(number, known.arguments), target)
    assert (found.kind, known.says in found.text) == (REFUSED, True), found


class Planted(nn.Module):
    """Something that is wrong in one way."""

    def __init__(self, target: Target, answer: Callable[[nn.Module, tuple[Tensor, ...]], Any]) -> None:
        super().__init__()
        self.called, self.answer = target.called, answer

    def forward(self, *args: Any) -> Any:
        return self.answer(self.called, args)


def writing(called: nn.Module, args: tuple[Tensor, ...]) -> Any:
    found = called(*args)
    args[0].detach().zero_()
    return found


def silent(called: nn.Module, args: tuple[Tensor, ...]) -> Any:
    if args[0].size(0) == 1:
        raise RuntimeError("no")
    return called(*args)


def light(called: nn.Module, args: tuple[Tensor, ...]) -> Any:
    _, target = named("mlp, eager")
    assert target.light is not None
    return target.light(*args)


def forgetful() -> Callable[[nn.Module, tuple[Tensor, ...]], Any]:
    failed: list[int] = []

    def answer(called: nn.Module, args: tuple[Tensor, ...]) -> Any:
        try:
            return called(*args) + len(failed)
        except Exception:
            failed.append(1)
            raise

    return answer


def whatever(called: nn.Module, args: tuple[Tensor, ...]) -> Any:
    try:
        return called(*args)
    except Exception:
        return torch.zeros(3, 8)


FAULTS: dict[str, tuple[str, Callable[[nn.Module, tuple[Tensor, ...]], Any], str]] = {
    "rows in another order": ("mlp, eager", lambda m, x: m(*x).flip(0), "row N is neither|row N must be hard"),
    "a light answer for rows out of range": ("mlp, eager", light, "row N must be hard"),
    "rows that are not finite made so": ("cascade, frozen", lambda m, x: m(*x).nan_to_num(), "row N must be hard"),
    "rows that are far off": ("residual, frozen", lambda m, x: m(*x) * 2, "row N is neither"),
    "dead rows that are not zero": ("padded, eager", lambda m, x: m(*x) + 1, "row N is dead and not zero"),
    "another dtype": ("mlp, frozen", lambda m, x: m(*x).double(), "it returns TYPE"),
    "a call that writes": ("no-gate, eager", writing, "it changed its input"),
    "an error without words": ("no-gate, frozen", silent, "an error that says nothing"),
    "an error that leaves something behind": ("mlp, frozen", forgetful(), "it answers otherwise after an error"),
    "an answer to anything": ("mlp, eager", whatever, "it answers where the original raises"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str) -> None:
    name, answer, text = FAULTS[fault]
    number, target = named(name)
    planted, rng = replace(target, called=Planted(target, answer)), random.Random(0)
    for _ in range(300):
        call = draw(bytes([number]) + rng.randbytes(LENGTH), names())
        found = judge(call, planted)
        if found.kind == WRONG and re.match(text, alike(found.text)):
            return
    pytest.fail(f"{fault} was not found")


def test_smallest_is_the_shortest_that_still_fails() -> None:
    assert smallest(bytes([9, 7, 200, 3, 4]), lambda data: len(data) > 2 and data[2] >= 100) == bytes([0, 0, 100])
