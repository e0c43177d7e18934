"""One call's inputs, and the tensors of one call's outputs, whatever form the caller gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dendrofx.errors import InputError
from dendrofx.values.outputs import flatten


@dataclass(frozen=True)
class Inputs:
    """Positional and keyword inputs of one call; tensors may lie inside dicts, tuples and lists.

    Example:
        >>> Inputs.of({"x": torch.zeros(8, 64)})
        (x=float32[8, 64])
    """

    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    shared: frozenset[str] = frozenset()  # names of inputs that all samples share: they are not cut

    @staticmethod
    def of(batch: Any) -> Inputs:  # noqa: ANN401  (a tensor, tuple, list or dict: anything else is refused here)
        """Read one batch as users write it: a tensor, a tuple or list of positional inputs, or a dict of named ones.

        Raises:
            InputError: anything else, with what to write instead.
        """
        if isinstance(batch, Inputs):
            return batch
        if isinstance(batch, Tensor):
            return Inputs((batch,))
        if isinstance(batch, Mapping) and all(isinstance(k, str) for k in batch):
            return Inputs((), tuple(batch.items()))
        if isinstance(batch, list) and batch and all(isinstance(b, Mapping) for b in batch):
            raise InputError(
                "a batch is no list of dicts: join its samples with torch.utils.data.default_collate(batch)"
            )
        if isinstance(batch, tuple | list):
            return Inputs(tuple(batch))
        raise InputError(f"a batch is a tensor, a tuple or a dict of tensors, got {_kind(batch)}{_instead(batch)}")

    def call(self, module: Callable[..., Any]) -> Any:  # noqa: ANN401
        """Return the module's output on these inputs."""
        return module(*self.args, **dict(self.kwargs))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the inputs."""
        return flatten([*self.args, *(v for _, v in self.kwargs)])[0]

    @property
    def samples(self) -> int:
        """The leading size that all tensor inputs have that carry samples, or 1 when they have none in common."""
        sizes = {t.size(0) if t.dim() > 0 else -1 for t in self.carrying}
        return sizes.pop() if len(sizes) == 1 and -1 not in sizes else 1

    @property
    def carrying(self) -> list[Tensor]:
        """The tensors that carry samples."""
        return flatten([*self.args, *(v for k, v in self.kwargs if k not in self.shared)])[0]

    def take(self, index: Tensor) -> Inputs:
        """Return the samples at `index` (i64[k])."""
        return self.map(lambda t: t.index_select(0, index))

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Return the inputs with every tensor changed that carries samples."""
        kept = ((k, v if k in self.shared else _changed(v, change)) for k, v in self.kwargs)
        return Inputs(tuple(_changed(v, change) for v in self.args), tuple(kept), self.shared)

    def copied(self) -> Inputs:
        """Return the inputs with tensors of their own: for a call that may write into them."""
        args, kwargs = _changed([self.args, dict(self.kwargs)], torch.clone)
        return Inputs(tuple(args), tuple(kwargs.items()), self.shared)

    def __str__(self) -> str:
        return f"({', '.join([show(v) for v in self.args] + [f'{k}={show(v)}' for k, v in self.kwargs])})"


def show(value: Any) -> str:  # noqa: ANN401
    """Return an input in a few words, `float32[8, 64]`; of long containers the first parts."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(_few(f'{k}: {show(v)}' for k, v in value.items()))}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_few(map(show, value)))}]"
    if hasattr(value, "__array__") or not isinstance(value, bool | int | float | str | type(None)):
        return _kind(value)
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _few(texts: Iterator[str], most: int = 4) -> list[str]:
    found = list(texts)
    return found if len(found) <= most else [*found[:most], f"... {len(found) - most} more"]


def _kind(value: Any) -> str:  # noqa: ANN401
    kind = type(value)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}" if kind.__module__ != "builtins" else kind.__name__


def _instead(value: Any) -> str:  # noqa: ANN401
    """Return what to write for something that is often passed."""
    kind = _kind(value)
    if kind == "numpy.ndarray":
        return ": write torch.from_numpy(batch)"
    if kind.startswith("pandas."):
        return ": write torch.from_numpy(frame.to_numpy(dtype='float32'))"
    if kind == "torch.DataLoader" or hasattr(value, "__next__"):
        return ": several batches go to calibration="
    return ""


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    """Return a tree of inputs with its tensors changed; what is no container stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        made = {k: _changed(v, change) for k, v in value.items()}
        return made if type(value) is dict else type(value)(made)  # type: ignore[call-arg]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _changed(getattr(value, f.name), change) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    if isinstance(value, tuple | list):
        parts = [_changed(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
