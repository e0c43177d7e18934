"""The sizes that a program was traced for, as guards; see `values/guards.py`.

The program's own reader checks them (format "pt2"); native code and ONNX Runtime do not, and would answer in silence.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dendrofx.errors import CaptureError, InputError
from dendrofx.graph.inputs import Input
from dendrofx.values.guards import broken, from_export

_SIZE = re.compile(r"(\w+)\.size\((\d+)\)")


def size_guards(program: ExportedProgram, names: Sequence[str]) -> tuple[str, ...]:
    """Return what a program assumes about the sizes of its inputs.

    Args:
        program: of these inputs.
        names: of the inputs, in order.

    Raises:
        InputError: it assumes something that cannot be checked in a call.
    """
    fixed = [
        f"{name}.size({axis}) == {size}"
        for name, shape in shapes(program, names).items()
        for axis, size in enumerate(shape)
        if isinstance(size, int)
    ]
    numbered = {f"L['{name}']": f"L['tensors'][{i}]" for i, name in enumerate(names)}
    code = [re.sub(r"L\['\w+'\]", lambda m: numbered[m[0]], line) for line in program._guards_code]
    try:
        return (*fixed, *(g for g in from_export(code, names) if g not in fixed))
    except (CaptureError, KeyError) as error:
        raise InputError(
            f"torch.export traced the module for sizes that no call can be checked for: {error}"
        ) from error


def shapes(program: ExportedProgram, names: Sequence[str]) -> dict[str, Sequence[int | torch.SymInt]]:
    """Return the shapes of a program's inputs by name."""
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    return {name: values[given].shape for name, given in zip(names, program.graph_signature.user_inputs, strict=True)}


def warn_of_small(
    guards: Sequence[str], module: nn.Module, inputs: Sequence[Input], given: Mapping[str, Tensor]
) -> None:
    """Warn of axes that vary and may not be 1 or 2 in a program, though the module runs on an example of that size.

    Args:
        guards: of the program.
        module: that was traced.
        inputs: of both.
        given: the example that it was traced with.
    """
    letters = {(one.name, axis): letter for one in inputs for axis, letter in enumerate(one.axes or ())}
    for guard in guards:
        found = {(name, int(axis)) for name, axis in _SIZE.findall(guard)}
        letter = letters.get(next(iter(found))) if len(found) == 1 else None
        if not isinstance(letter, str):
            continue
        ((name, axis),) = found
        for size in (1, 2):
            short = {
                n: _cut(x, [a for a in range(x.dim()) if letters.get((n, a)) == letter], size) for n, x in given.items()
            }
            if broken([guard], short) is not None and _runs(module, short):
                warnings.warn(
                    f"axis {axis} of '{name}' cannot be {size} in this format: torch.export traced the module for {guard} alone",
                    stacklevel=5,
                )


def _cut(x: Tensor, axes: Sequence[int], size: int) -> Tensor:
    for axis in axes:
        x = x.narrow(axis, 0, min(size, x.size(axis)))
    return x


def _runs(module: nn.Module, given: Mapping[str, Tensor]) -> bool:
    try:
        with torch.no_grad():
            module(**given)
    except Exception:
        return False
    return True
