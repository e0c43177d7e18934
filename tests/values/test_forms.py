"""Forms as text and as JSON: what prints reads back."""

import json
import math
from typing import Any

import pytest
from torch import nn

from dendrofx.errors import InputError
from dendrofx.gates import (
    AlwaysFull,
    AlwaysLight,
    EnergyGate,
    LearnedGate,
    MarginGate,
    NoGate,
    NoiseGate,
    OracleGate,
    RandomGate,
    ResidualGate,
    UserGate,
)
from dendrofx.gates.user import NotKept
from dendrofx.light import BFloat16, Int8, LowRank, Prepacked, Pruned, Transposed
from dendrofx.light.exits import Exit
from dendrofx.light.routed_blocks import RoutedBlocks
from dendrofx.values.codec import decode
from dendrofx.values.forms import Form, form_from_text

PRINTED: list[tuple[Form, str]] = [
    (LowRank(8), "LowRank(rank=8, basis='weight')"),
    (LowRank(8, "whitened", Int8()), "LowRank(rank=8, basis='whitened', precision=Int8())"),
    (LowRank(1, precision=Int8(7, 0.5)), "LowRank(rank=1, basis='weight', precision=Int8(weight_bits=7, smooth=0.5))"),
    (LowRank(3, "input", BFloat16(True)), "LowRank(rank=3, basis='input', precision=BFloat16(packed=True))"),
    (Pruned(), "Pruned(energy=0.999)"),
    (Pruned(0.5, 1e-3, Prepacked()), "Pruned(energy=0.5, ridge=0.001, precision=Prepacked())"),
    (Pruned(1.0, math.inf), "Pruned(energy=1.0)"),
    (Int8(), "Int8()"),
    (Int8(weight_bits=7), "Int8(weight_bits=7)"),
    (Int8(smooth=1.0), "Int8(smooth=1.0)"),
    (BFloat16(), "BFloat16()"),
    (BFloat16(packed=True), "BFloat16(packed=True)"),
    (Prepacked(), "Prepacked()"),
    (Transposed(), "Transposed()"),
    (ResidualGate(), "ResidualGate()"),
    (NoiseGate(), "NoiseGate()"),
    (EnergyGate(), "EnergyGate()"),
    (LearnedGate(), "LearnedGate(directions=8)"),
    (LearnedGate(3, 0.5, "light"), "LearnedGate(directions=3, ridge=0.5, reads='light')"),
    (LearnedGate(reads="scales"), "LearnedGate(directions=8, reads='scales')"),
    (MarginGate(), "MarginGate()"),
    (NotKept("Mine()"), "NotKept(name='Mine()')"),
    (AlwaysFull(), "AlwaysFull()"),
    (AlwaysLight(), "AlwaysLight()"),
    (NoGate(), "NoGate()"),
    (OracleGate(), "OracleGate()"),
    (RandomGate(0.25), "RandomGate(rate=0.25)"),
    (RandomGate(0.25, seed=3), "RandomGate(rate=0.25, seed=3)"),
    (RoutedBlocks(0.05), "RoutedBlocks(max_deviation=0.05)"),
    (Exit(("a", "b.c")), "Exit(('a', 'b.c'))"),
]


@pytest.mark.parametrize(("form", "text"), PRINTED, ids=[t for _, t in PRINTED])
def test_a_form_prints_and_reads_back(form: Form, text: str) -> None:
    assert str(form) == text
    assert form_from_text(text) == form
    again = decode(Form, json.loads(json.dumps(form.to_json(), allow_nan=False)))
    assert again == form
    assert type(again) is type(form)


def test_every_form_is_tried() -> None:
    def below(kind: type[Form]) -> set[type[Form]]:
        return {s for child in kind.__subclasses__() for s in {child, *below(child)}}

    ours = {
        kind for kind in below(Form) if kind.__module__.startswith("dendrofx.") and "__dataclass_fields__" in vars(kind)
    }
    assert {type(form) for form, _ in PRINTED} | {UserGate} == ours  # which holds a module, and becomes a NotKept
    assert decode(Form, UserGate(nn.Identity()).to_json()) == NotKept("Identity()")


def test_json_of_a_nested_form() -> None:
    assert Pruned(0.9, precision=Int8(7)).to_json() == {
        "form": "Pruned",
        "energy": 0.9,
        "ridge": "inf",
        "precision": {"form": "Int8", "weight_bits": 7, "smooth": 0.0},
    }


def test_json_of_an_older_version_without_later_fields() -> None:
    assert decode(Form, {"form": "LowRank", "rank": 4}) == LowRank(4)


@pytest.mark.parametrize(("value", "message"), [
    ({"form": "Ternary"}, "unknown form 'Ternary': this version has AlwaysFull, AlwaysLight, BFloat16,"),
    ({"form": "LightForm"}, "unknown form 'LightForm'"),
    ({"form": "Precision"}, "unknown form 'Precision'"),
    ({"form": "__class__"}, "unknown form '__class__'"),
    ({}, "unknown form 'None'"),
    ({"form": "Int8", "bits": 8}, "bits is no field of Int8, which has weight_bits, smooth"),
    ({"form": "LowRank"}, "rank is missing: it must be a whole number"),
    ({"form": "LowRank", "rank": "many"}, 'rank must be a whole number, got "many"'),
    ({"form": "LowRank", "rank": True}, "rank must be a whole number, got true"),
    ({"form": "LowRank", "rank": 4, "precision": {"form": "LowRank", "rank": 2}}, "precision must be a precision, got LowRank"),
    ({"form": "LowRank", "rank": 0}, "rank must be >= 1, got 0"),
    ({"form": "LowRank", "rank": 4, "precision": {"form": "Int9"}}, "precision: unknown form 'Int9'"),
    ({"form": "Pruned", "precision": {"form": "Int8", "weight_bits": 9}}, "precision: weight_bits must be 8 or 7, got 9"),
], ids=lambda v: v if isinstance(v, str) else None)  # fmt: skip
def test_json_that_is_no_form(value: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        decode(Form, value)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("text", ["Int8", " Int8( ) ", "Int8(8, 0.0)", "Int8(weight_bits=8)"])
def test_text_as_a_person_writes_it(text: str) -> None:
    assert form_from_text(text) == Int8()


def test_text_with_forms_and_infinity_inside() -> None:
    assert form_from_text("LowRank(rank=4, precision=Int8)") == LowRank(4, precision=Int8())
    assert form_from_text("Pruned(0.9, ridge=inf, precision=BFloat16(packed=True))") == Pruned(
        0.9, precision=BFloat16(True)
    )


@pytest.mark.parametrize(("text", "message"), [
    ("", "'' is no form: write it as LowRank(rank=32) or Int8()"),
    ("LowRank(", "'LowRank(' is no form"),
    ("8", "'8' is no form"),
    ("Ternary()", "unknown form 'Ternary'"),
    ("Int8(bits=8)", "'Int8(bits=8)': "),
    ("LowRank()", "'LowRank()': "),
    ("Int8(smooth=2)", "smooth must be in [0, 1], got 2"),
    ("Int8(**{})", "'Int8(**{})' is no form"),
    ("os.system('true')", "\"os.system('true')\" is no form"),
    ("Int8(smooth=1/2)", "'Int8(smooth=1/2)' is no form: 1 / 2 is not a plain value"),
    ("Int8(smooth=__import__('os'))", "unknown form '__import__'"),
], ids=lambda v: v[:30])  # fmt: skip
def test_text_that_is_no_form(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        form_from_text(text)
    assert str(error.value).startswith(message)
