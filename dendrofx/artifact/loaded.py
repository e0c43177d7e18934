"""A saved module as it is loaded: what runs the file, called as the model was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.artifact.call_json import decode_form
from dendrofx.errors import InputError
from dendrofx.formats.taken import taken
from dendrofx.graph.inputs import Input
from dendrofx.guarantee.certificate import Certificate
from dendrofx.plan.plan import Plan
from dendrofx.values.calling import CallForm
from dendrofx.values.guards import SizeError, broken
from dendrofx.values.inputs import Inputs, show


class LoadedModule(nn.Module):
    """What `load` returns: what runs the file, called with the names of the model and returning what the model returned.

    Attributes:
        scripted: the script module, which `tolerances` and `set_tolerances` take; of another format what runs it, by input names.
        model: class name of the original.
        plan: every candidate site; None of a module that was written without.
        certificate: None without one.
        inputs: the tensors that it takes, with dtypes and sizes.
        counted: whether the file is of another format than TorchScript and was saved with `counts=True`.
        output_class: of what it returns, as `module:qualname`; None of a tensor.
        graph_text: of the module that was saved, see `graph_text`; empty where it had no graph.
        versions: of dendrofx, torch and Python that wrote it, by name.

    Example:
        >>> module = dendrofx.load("model.pt")
        >>> print(module.inputs[0])
        x: float32[N, 64]
    """

    def __init__(
        self,
        scripted: Callable[..., Any],
        plan: Plan | None,
        certificate: Certificate | None,
        described: Mapping[str, Any],
        versions: Mapping[str, str],
        guards: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.scripted: Any = scripted
        self.plan, self.certificate, self.versions = plan, certificate, dict(versions)
        self.model: str = described["model"]
        self.inputs = tuple(Input(i["name"], i["dtype"], _axes(i["axes"])) for i in described["inputs"])
        self.output_class: str | None = described["output"]
        self.graph_text: str = described["graph"]
        self.counted: bool = described["counted"]
        self._form: CallForm | None = None if described["call"] is None else decode_form(described["call"])
        self._guards: tuple[str, ...] = tuple(guards)

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (the model's own)
        """Return what the model returned; raise `InputError` for inputs that it was not captured for."""
        found = self._called(self.scripted, args, kwargs)
        return self._restored(found[0] if self.counted else found)

    def forward_counted(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return the output, and what was executed for it; see `RoutedModule`, and `save` for formats other than TorchScript.

        Raises:
            InputError: the file is of another format, and was saved without `counts=True`.
        """
        if self.counted:
            output, counts = self._called(self.scripted, args, kwargs)
            return self._restored(output), {site: _count(values) for site, values in counts.items()}
        if not hasattr(self.scripted, "forward_counted"):
            raise InputError("this file does not count: dendrofx.save(..., counts=True) writes one that does")
        output, counts = self._called(self.scripted.forward_counted, args, kwargs)
        return self._restored(output), counts

    def warm(self, *args: Any, **kwargs: Any) -> list[float]:  # noqa: ANN401
        """Make the slow first calls: TorchScript profiles in the first call and compiles in the second.

        What is compiled serves batches of any size. Warm in the mode that later calls run in, such as `torch.inference_mode()`.

        Args:
            *args: of one call.
            **kwargs: of one call.

        Returns:
            Milliseconds of three calls; the last is what a call takes from now on.

        Example:
            >>> first, second, now = dendrofx.load("model.pt").warm(batch)
        """
        spent = []
        for _ in range(3):
            start = time.perf_counter()
            self(*args, **kwargs)
            spent.append(1e3 * (time.perf_counter() - start))
        return spent

    def _called(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call what takes the graph's tensors by name."""
        given = Inputs(args, tuple(kwargs.items()))
        if self._form is not None:
            given = self._form.plain(given)
        if isinstance(self.scripted, torch.jit.ScriptModule):
            return given.call(run)
        return _plain(run(**self._checked(given)))

    def _checked(self, given: Inputs) -> dict[str, Tensor]:
        """Return what a file of another format takes; raise `InputError` for what it would not see, or name."""
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError(
                f"{self.model} from a file is called under torch.autocast, but its tolerances were found in float32: call it"
                " outside, or under torch.autocast('cpu', enabled=False)"
            )
        names = [one.name for one in self.inputs]
        if len(given.args) > len(names):
            raise InputError(f"this file takes {', '.join(map(str, self.inputs))}; got {len(given.args)} by position")
        tensors = taken(self.inputs, dict([*zip(names, given.args, strict=False), *given.kwargs]), "this file")
        if (guard := broken(self._guards, tensors)) is not None:
            got = ", ".join(f"{name}={show(x)}" for name, x in tensors.items())
            raise SizeError(f"this file takes calls for which {guard}; got {got}")
        return tensors

    def _restored(self, output: Any) -> Any:  # noqa: ANN401
        return output if self._form is None else self._form.restore(output)

    def __repr__(self) -> str:
        said = "no plan" if self.plan is None else self.plan.summary()
        return f"<{self.model} from a file ({', '.join(map(str, self.inputs))}): {said}>"


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return an output whose lists and dicts are Python's own: a program returns those of graphs, which cannot be changed."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value] if isinstance(value, list) else tuple(map(_plain, value))
    return value


def _count(values: Tensor) -> dict[str, int]:
    """Return the counts of a site by name; see `branchless.routes.count_split`."""
    names = ("rows", "hard_rows", "near_rows", "largest_score_millionths")
    return {name: int(value) for name, value in zip(names, values.tolist(), strict=True)}


def _axes(value: list[int | str] | None) -> tuple[int | str, ...] | None:
    return None if value is None else tuple(value)
