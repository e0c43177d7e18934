"""Fingerprints: short hashes by which a plan knows its model and its calibration data again."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from dendrofx.values.inputs import Inputs

LENGTH = 16
_PLAIN = (bool, int, float, str, tuple, list)


def model_fingerprint(model: nn.Module) -> str:
    """Hash names, shapes, dtypes and values of all parameters and buffers, and the modules' types and settings."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(f"{name}:{type(module).__name__}({module.extra_repr()});".encode())
    if isinstance(code := getattr(model, "code", None), str):  # a graph module's forward
        digest.update(code.encode())
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode())
        _add(digest, value)
    return digest.hexdigest()[:LENGTH]


def state_fingerprint(module: nn.Module) -> str:
    """Hash all that a routed module computes with: parameters, buffers and tolerances, plain attributes, classes, and its code."""
    digest = hashlib.sha256()
    for name, part in sorted(module.named_modules(), key=lambda named: named[0]):
        plain = {k: v for k, v in vars(part).items() if not k.startswith("_") and isinstance(v, _PLAIN)}
        code = _wiring(part.graph) if isinstance(part, fx.GraphModule) else ""
        digest.update(f"{name}:{type(part).__qualname__}:{sorted(plain.items())}:{code};".encode())
        if not type(part).__module__.startswith(("torch", "dendrofx")):  # a gate of the caller's
            digest.update(_source(type(part)).encode())
    for name, value in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda named: named[0]):
        digest.update(name.encode())
        _add(digest, value)
    return digest.hexdigest()[:LENGTH]


def data_fingerprint(batches: Iterable[Inputs]) -> str:
    """Hash the inputs of all batches, in order: names, tensors and other values."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, value in [*((str(i), v) for i, v in enumerate(batch.args)), *batch.kwargs]:
            digest.update(f"{name}:".encode())
            if isinstance(value, Tensor):
                _add(digest, value)
            else:
                digest.update(repr(value).encode())
    return digest.hexdigest()[:LENGTH]


def _wiring(graph: fx.Graph) -> str:
    """Return a graph's calls and what they take, whatever its nodes are called."""
    at = {node: f"%{i}" for i, node in enumerate(graph.nodes)}
    lines = []
    for node in graph.nodes:
        target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        taken = fx.node.map_arg((node.args, sorted(node.kwargs.items())), lambda n: _Place(at[n]))
        lines.append(f"{node.op} {'' if node.op in ('placeholder', 'output') else target} {taken}")
    return "\n".join(lines)


class _Place(str):
    """A node's place, printed without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed at a prompt
        return "".join(sorted(v.__code__.co_code.hex() for v in vars(kind).values() if hasattr(v, "__code__")))


def _add(digest: hashlib._Hash, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    plain = tensor.detach().cpu().contiguous()
    if plain.numel():
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)  # no copy
