"""Arithmetic of sizes that TorchScript does not know by the names that `torch.export` gives it: functions that it compiles."""

import math


def choose_size(condition: bool, yes: int, no: int) -> int:
    """`torch.sym_ite`."""
    return yes if condition else no


def negated(condition: bool) -> bool:
    """`torch.sym_not`."""
    return not condition


def whole_part(x: float) -> int:
    """`math.trunc`."""
    return int(x)


def nearest_even(x: float) -> int:
    """Python's `round`: to the nearest whole number, halves to the even one."""
    low = math.floor(x)
    if x - low == 0.5:
        return low + low % 2
    return low if x - low < 0.5 else low + 1
