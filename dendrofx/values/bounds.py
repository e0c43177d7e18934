"""Which guards of a call another one implies: of all bounds of one expression the strongest is enough."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.NotEq: ast.NotEq, ast.Eq: ast.Eq
}  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """A guard that compares an expression with a number.

    Attributes:
        of: the expression, as text.
        op: how it is compared.
        limit: the number.
    """

    of: str
    op: type[ast.cmpop]
    limit: int

    def implies(self, other: Bound) -> bool:
        """Tell whether the other holds wherever this one does."""
        if self.of != other.of:
            return False
        if self == other:
            return True
        if self.op is ast.Eq:
            return other.holds(self.limit)
        if self.op in (ast.Gt, ast.GtE) and other.op in (ast.Gt, ast.GtE, ast.NotEq):
            return other.limit < self.limit or (other.limit == self.limit and self.op is ast.Gt)
        if self.op in (ast.Lt, ast.LtE) and other.op in (ast.Lt, ast.LtE, ast.NotEq):
            return other.limit > self.limit or (other.limit == self.limit and self.op is ast.Lt)
        return False

    def holds(self, value: int) -> bool:
        """Tell whether a value of the expression is within."""
        order = (value > self.limit) - (value < self.limit)
        return order in {
            ast.Lt: (-1,), ast.LtE: (-1, 0), ast.Gt: (1,), ast.GtE: (0, 1), ast.Eq: (0,), ast.NotEq: (-1, 1)
        }[self.op]  # fmt: skip


def strongest(guards: Sequence[str]) -> tuple[str, ...]:
    """Return guards without those that a stronger bound of the same expression implies, in their order.

    Args:
        guards: expressions over sizes.

    Example:
        >>> strongest(["ids.size(1) > 2", "ids.size(1) > 3", "x.size(0) % 7 != 0"])
        ('ids.size(1) > 3', 'x.size(0) % 7 != 0')
    """
    unique = tuple(dict.fromkeys(guards))
    bounds = [_bound(guard) for guard in unique]
    return tuple(g for i, g in enumerate(unique) if not _implied(i, bounds))


def _implied(place: int, bounds: Sequence[Bound | None]) -> bool:
    """Tell whether another bound implies the one of a place; of two that imply each other the first stays."""
    own = bounds[place]
    return own is not None and any(
        other is not None and other.implies(own) and (i < place or not own.implies(other))
        for i, other in enumerate(bounds)
        if i != place
    )


def _bound(guard: str) -> Bound | None:
    """Read a guard as a bound; None where it is something else."""
    tree = ast.parse(guard, mode="eval").body
    if not isinstance(tree, ast.Compare) or len(tree.ops) > 1 or type(tree.ops[0]) not in _FLIPPED:
        return None
    op, left, right = type(tree.ops[0]), tree.left, tree.comparators[0]
    if isinstance(left, ast.Constant):
        op, left, right = _FLIPPED[op], right, left
    if not isinstance(right, ast.Constant) or not isinstance(right.value, int) or isinstance(left, ast.Constant):
        return None
    return Bound(ast.unparse(left), op, right.value)
