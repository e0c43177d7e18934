"""The check that a scripted graph makes of its inputs' sizes; see `values/guards.py`."""

from torch import fx


@fx.node.has_side_effect
def require(holds: bool, message: str) -> None:
    """Raise unless a guard holds.

    Args:
        holds: the guard's value in this call.
        message: of the error.

    Raises:
        RuntimeError: it does not.
    """
    if not holds:
        raise RuntimeError(message)
