"""What must come of a call: the original's answer, or an error that says what the module takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.fuzz.draws import Call
from tests.fuzz.rows import wrong_rows
from tests.fuzz.targets import Target
from tests.fuzz.tensors import Of, build

RIGHT, REFUSED, BOTH, UNMADE, WRONG = "right", "refused", "refused by the original too", "torch has none", "WRONG"

_OTHERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: "x",
    "number": lambda: 3.5,
    "flag": lambda: True,
    "list": list,
    "numbers": lambda: [[0.5] * 64] * 3,
    "tensors": lambda: [torch.zeros(3, 64)],
    "array": lambda: np.zeros((3, 64), np.float32),
    "dict": lambda: {"x": torch.zeros(3, 64)},
    "module": lambda: nn.Linear(64, 64),
    "dtype": lambda: torch.float32,
}
_MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}

# An error that one of these is found in says what the module takes, or what of the call does not fit. Some dtypes are but names:
# torch has no arithmetic for them.
CLEAR = re.compile(
    r"takes|was captured with|was found in float32|is not finite|cast the input|does not fit"
    r"|was captured for|does not take the inputs|not implemented for '(U?Int[1-7]|Bits|Float4)"
    r"|Expected a value of type 'Tensor|missing value for argument|[Ee]xpected at most|Unknown keyword argument"
)


@dataclass(frozen=True)
class Outcome:
    """What became of a call: `kind`, one of those above, and the error's first line, or what is wrong."""

    kind: str
    text: str = ""


def judge(call: Call, target: Target) -> Outcome:
    """Make a call of a target and of its original, and compare."""
    try:
        given = [build(a) if isinstance(a, Of) else _OTHERS[a]() for a in call.arguments]
    except Exception as error:
        return Outcome(UNMADE, said(error))
    args, kwargs = _passed(call, target, given)
    before = [_bits(v) for v in given]
    with _MODES[call.mode]():
        wanted = _original(target, args, kwargs)
        got = _called(target.called, args, kwargs)
    if not all(map(_same, before, given)):
        return Outcome(WRONG, "it changed its input")
    if isinstance(got, Exception):
        if not target.is_as_before():
            return Outcome(WRONG, "it answers otherwise after an error")
        return _refused(got, wanted)
    if isinstance(wanted, Exception):
        return Outcome(WRONG, f"it answers where the original raises: {said(wanted)}")
    return Outcome(WRONG, found) if (found := wrong_rows(target, given, wanted, got)) else Outcome(RIGHT)


def _passed(call: Call, target: Target, given: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    named = dict(zip(target.names, given, strict=True))
    return {
        "by position": (tuple(given), {}),
        "by name": ((), named),
        "one too few": (tuple(given[:-1]), {}),
        "one too many": ((*given, given[0]), {}),
        "an unknown name": (tuple(given), {"other": given[0]}),
    }[call.named]


def _called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call returns, or raises."""
    try:
        return module(*args, **kwargs)
    except Exception as error:
        return error


def _original(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the original returns, or raises; what it only cannot differentiate it returns."""
    found = _called(target.original, args, kwargs)
    if isinstance(found, Exception) and "saved for backward" in str(found):
        with torch.no_grad():
            return _called(target.original, args, kwargs)
    return found


def _refused(got: Exception, wanted: Any) -> Outcome:
    text = said(got)
    if isinstance(wanted, Exception):
        return Outcome(BOTH, text) if text else Outcome(WRONG, f"a {type(got).__name__} that says nothing")
    return Outcome(REFUSED, text) if CLEAR.search(text) else Outcome(WRONG, f"an error that says nothing: {text}")


def said(error: Exception) -> str:
    """The line of an error that says what is wrong: of a script's, which begin with its code, that of what was raised in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if not lines[0].startswith("The following operation failed in the TorchScript interpreter"):
        return lines[0]
    raised = [m[1] for line in lines if (m := re.match(r"(?:[\w.]*Error|[\w.]*Exception): (.*)", line))]
    return raised[-1] if raised else lines[-1]


def _bits(value: Any) -> Tensor | None:
    """What a tensor holds, bit by bit; None of what holds nothing, or nothing that torch can copy."""
    try:
        value = value.detach()
        plain = value.int_repr() if value.is_quantized else value.to_dense()
        return plain.resolve_neg().reshape(-1).clone().view(torch.uint8)  # type: ignore[no-any-return]
    except Exception:
        return None


def _same(before: Tensor | None, after: Any) -> bool:
    now = _bits(after)
    return before is None or before.is_meta or (now is not None and torch.equal(before, now))
