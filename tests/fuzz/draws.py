"""A call from bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.fuzz import tensors
from tests.fuzz.tensors import Fill, Of

T = TypeVar("T")
LENGTH = 48  # bytes that no call reads more of

# What is no tensor, by the name that it is drawn under; see `values`.
OTHERS = ("none", "text", "number", "flag", "list", "numbers", "tensors", "array", "dict", "module", "dtype")
SHAPES: tuple[tuple[int, ...], ...] = (
    (3, 64), (1, 64), (17, 64), (2, 3, 64), (0, 64), (64,), (), (2, 1, 2, 64), (3, 63), (3, 65), (64, 3), (3, 1), (3, 0), (0,),
    (0, 3, 64), (2, 0, 64), (1, 1, 1, 1, 64),
)  # fmt: skip
MASKS: tuple[tuple[int, ...], ...] = ((2, 3), (1, 3), (3, 1), (2, 3, 1), (6,), (), (0, 3), (2, 0), (3, 2), (1, 1))
FITTING = {"x": (2, 3, 64), "mask": (2, 3)}  # of the model with a mask
MODES = ("plain", "no_grad", "inference")
NAMED = ("by position", "by name", "one too few", "one too many", "an unknown name")


class Bytes:
    """Choices from bytes; when they are used up, the first of each.

    Example:
        >>> draws = Bytes(bytes([1, 7]))
        >>> draws.of(["a", "b"]), draws.below(5), draws.below(5)
        ('b', 2, 0)
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def below(self, n: int) -> int:
        """A number from 0 to n - 1, at most 256."""
        value = self.data[self.place] if self.place < len(self.data) else 0
        self.place += 1
        return value % n

    def of(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def rarely(self, choices: Sequence[T], one_in: int = 4) -> T:
        """The first of them, or once in so many times another."""
        return self.of(choices) if self.below(one_in) == one_in - 1 else choices[0]


@dataclass(frozen=True)
class Call:
    """A call, without its values.

    Attributes:
        target: a number, of what is called.
        arguments: of each input, a tensor's description or the name of something else.
        named: how they are passed, one of `NAMED`.
        mode: of autograd, one of `MODES`.
    """

    target: int
    arguments: tuple[Of | str, ...]
    named: str = NAMED[0]
    mode: str = MODES[0]


def draw(data: bytes, targets: Sequence[Sequence[str]]) -> Call:
    """The call that bytes stand for.

    Args:
        targets: names of the inputs of each.
    """
    draws = Bytes(data)
    target = draws.below(len(targets))
    names = targets[target]
    mode, named, fits = draws.rarely(MODES), draws.rarely(NAMED, 8), draws.below(4) > 0
    return Call(target, tuple(_argument(draws, name, fits and len(names) > 1) for name in names), named, mode)


def _argument(draws: Bytes, name: str, fits: bool) -> Of | str:
    if draws.below(24) == 23:
        return draws.of(OTHERS)
    mask = name == "mask"
    shape = FITTING[name] if fits else draws.of(MASKS if mask else SHAPES)
    usual = draws.of(("ones", "ends", "zeros") if mask else tensors.FILLS)
    odd = draws.rarely(tensors.FILLS)
    return Of(
        shape,
        dtype=draws.rarely(tensors.DTYPES, 8),
        fill=Fill(usual, odd, draws.below(8), draws.below(256)),
        layout=draws.rarely(tensors.LAYOUTS, 6),
        trait=draws.rarely(tensors.TRAITS, 8),
    )


def smallest(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """The bytes of a call that still fails, with as many at zero as a greedy search finds, and those at the end left out."""
    for i in range(len(data) - 1, -1, -1):
        for value in (0, data[i] // 2, data[i] - 1):
            if 0 <= value < data[i] and fails(changed := data[:i] + bytes([value]) + data[i + 1 :]):
                data = changed
                break
    return data.rstrip(b"\0")
