"""One call's inputs, and the tensors of one call's outputs, whatever form the caller gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dendrofx.errors import InputError


@dataclass(frozen=True)
class Inputs:
    """Positional and keyword inputs of one call.

    Example:
        >>> Inputs.of({"x": torch.zeros(8, 64)})
        (x=float32[8, 64])
    """

    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    shared: frozenset[str] = frozenset()  # names of inputs that all samples share: they are not cut

    @staticmethod
    def of(batch: Any) -> Inputs:  # noqa: ANN401  (a tensor, tuple, list or dict: anything else is refused here)
        """From one batch as users write it: a tensor, a tuple or list of positional inputs, or a dict of named ones.

        Raises:
            InputError: anything else.
        """
        if isinstance(batch, Inputs):
            return batch
        if isinstance(batch, Tensor):
            return Inputs((batch,))
        if isinstance(batch, Mapping):
            return Inputs((), tuple(batch.items()))
        if isinstance(batch, tuple | list):
            return Inputs(tuple(batch))
        raise InputError(f"a batch is a tensor, a tuple or a dict of tensors, got {type(batch).__name__}")

    def call(self, module: Callable[..., Any]) -> Any:  # noqa: ANN401
        """The module's output on these inputs."""
        return module(*self.args, **dict(self.kwargs))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the inputs."""
        return [v for v in (*self.args, *(v for _, v in self.kwargs)) if isinstance(v, Tensor)]

    @property
    def samples(self) -> int:
        """The leading size that all tensor inputs have that carry samples, or 1 when they have none in common."""
        sizes = {t.size(0) if t.dim() > 0 else -1 for t in self.carrying}
        return sizes.pop() if len(sizes) == 1 and -1 not in sizes else 1

    @property
    def carrying(self) -> list[Tensor]:
        """The tensors that carry samples."""
        return [
            v
            for k, v in (*(("", v) for v in self.args), *self.kwargs)
            if isinstance(v, Tensor) and k not in self.shared
        ]

    def take(self, index: Tensor) -> Inputs:
        """The samples at `index` (i64[k])."""
        return self.map(lambda t: t.index_select(0, index))

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """With every tensor changed that carries samples."""

        def pick(v: Any) -> Any:  # noqa: ANN401
            return change(v) if isinstance(v, Tensor) else v

        kept = ((k, v if k in self.shared else pick(v)) for k, v in self.kwargs)
        return Inputs(tuple(map(pick, self.args)), tuple(kept), self.shared)

    def __str__(self) -> str:
        def show(v: Any) -> str:  # noqa: ANN401
            return f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}" if isinstance(v, Tensor) else repr(v)

        return f"({', '.join([show(v) for v in self.args] + [f'{k}={show(v)}' for k, v in self.kwargs])})"
