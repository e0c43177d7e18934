"""`load`: a saved file as a module that is called as the model was, with its plan, certificate and versions.

The seal is checked first, over the very bytes that torch then reads. Python unpickles nothing but tensors: torch's own readers take
these and the code, pickled objects beside them are refused, and all else is JSON. What AOTInductor compiled is native code.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dendrofx.artifact.archive import CERTIFICATE, INPUTS, PLAN, VERSIONS, content
from dendrofx.artifact.call_json import decode_form, missing_classes
from dendrofx.artifact.certificate import verified
from dendrofx.artifact.description import FORMAT
from dendrofx.artifact.opened import Opened, opened_file
from dendrofx.errors import ArtifactError, InputError
from dendrofx.graph.inputs import Input
from dendrofx.graph.show import first_line
from dendrofx.guarantee.certificate import Certificate
from dendrofx.plan import file
from dendrofx.plan.plan import Plan
from dendrofx.values.calling import CallForm
from dendrofx.values.inputs import Inputs
from dendrofx.version import VERSION


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
        elif args and not isinstance(self.scripted, torch.jit.ScriptModule):
            names = [one.name for one in self.inputs]
            given = Inputs((), (*zip(names, args, strict=False), *kwargs.items()))
        return given.call(run)

    def _restored(self, output: Any) -> Any:  # noqa: ANN401
        return output if self._form is None else self._form.restore(output)

    def __repr__(self) -> str:
        said = "no plan" if self.plan is None else self.plan.summary()
        return f"<{self.model} from a file ({', '.join(map(str, self.inputs))}): {said}>"


def load(path: str | Path) -> LoadedModule:
    """Read a module that `save` wrote, with all that the file says about it.

    Python unpickles nothing of it. Where the model returned an object of a class, that is used if its module is imported
    here, or is of transformers; else a dict or a tuple stands in for it, with a warning.

    Args:
        path: of the file.

    Returns:
        A module that is called with the same names and returns the same values.

    Raises:
        ArtifactError: no such file, or it is damaged, was changed since it was written, was written by something else or by another
            version; the message says which. `CertificateError` where it is the certificate.

    Example:
        >>> dendrofx.load("model.pt").plan.routed[0].name
        'fc1..fc2'
    """
    data = content(path)
    opened = opened_file(data, path)
    found, wrote = opened.records, _checked(opened, path)
    try:
        described = json.loads(found[f"extra/{INPUTS}"])
        text = found.get(f"extra/{PLAN}")
        plan = None if text is None else file.from_json(Plan, json.loads(text))
        certificate = verified(found, path) if f"extra/{CERTIFICATE}" in found else None
        made = LoadedModule(opened.runner(), plan, certificate, described, wrote)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"cannot read {path}: {first_line(error)}") from error
    _warn(described, path)
    return made


def _checked(opened: Opened, path: str | Path) -> dict[str, str]:
    """Return the versions that wrote a file, its seal checked; raise `ArtifactError` where it is not one of this version's."""
    text = opened.records.get(f"extra/{VERSIONS}")
    if text is None:
        raise ArtifactError(
            f"{path} was not written by dendrofx.save of version {VERSION}: by an older one, or by something else."
            " torch.jit.load runs it if it is TorchScript; to have its plan here, transform and save again"
        )
    try:
        value = json.loads(text)
        wrote = {name: str(value[name]) for name in ("format", "dendrofx", "torch", "python", "seal")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{path} was changed since it was written: {VERSIONS} in it cannot be read") from error
    if wrote["format"] != str(FORMAT) or wrote["dendrofx"] != VERSION:
        raise ArtifactError(
            f"{path} was written by another version: dendrofx {wrote['dendrofx']} there, {VERSION} here. Load it with that one, run"
            " it with torch.jit.load, or transform and save again"
        )
    if opened.seal != wrote.pop("seal"):
        raise ArtifactError(
            f"{path} was changed since it was written: its records do not have its seal, but {opened.seal}"
        )
    return wrote


def _count(values: Tensor) -> dict[str, int]:
    """Return the counts of a site by name; see `branchless.routes.count_split`."""
    names = ("rows", "hard_rows", "near_rows", "largest_score_millionths")
    return {name: int(value) for name, value in zip(names, values.tolist(), strict=True)}


def _axes(value: list[int | str] | None) -> tuple[int | str, ...] | None:
    return None if value is None else tuple(value)


def _warn(described: Mapping[str, Any], path: str | Path) -> None:
    """Say what of a model's call or output the file's module does not have here."""
    if described["not_held"]:
        warnings.warn(f"{path}: {described['not_held']}; it takes and returns what its graph does", stacklevel=3)
    call = described["call"]
    if call is not None and (missing := missing_classes(call["output"])):
        module = missing[0].partition(":")[0]
        warnings.warn(
            f"{path} returned {missing[0]}, which is not known here: a plain container stands in for it. Import {module} before"
            " dendrofx.load",
            stacklevel=3,
        )
