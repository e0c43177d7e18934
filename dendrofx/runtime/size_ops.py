"""Arithmetic of sizes that TorchScript does not know by the names that `torch.export` gives it: functions that it compiles."""

import math


def choose_size(condition: bool, yes: int, no: int) -> int:
    """Compute `torch.sym_ite`."""
    return yes if condition else no


def negated(condition: bool) -> bool:
    """Compute `torch.sym_not`."""
    return not condition


def whole_part(x: float) -> int:
    """Compute `math.trunc`."""
    return int(x)


def nearest_even(x: float) -> int:
    """Round as Python does: to the nearest whole number, halves to the even one."""
    low = math.floor(x)
    if x - low == 0.5:
        return low + low % 2
    return low if x - low < 0.5 else low + 1
