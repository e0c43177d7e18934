"""Fingerprints: short hashes by which a plan knows its model and its calibration data again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dendrofx.inputs import Inputs

LENGTH = 16


def model_fingerprint(model: nn.Module) -> str:
    """Of names, shapes, dtypes and values of all parameters and buffers, and of the modules' types and settings."""
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
    """Of the names and values of all parameters and buffers: of a routed module with its tolerances."""
    digest = hashlib.sha256()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        _add(digest, value)
    return digest.hexdigest()[:LENGTH]


def data_fingerprint(batches: Iterable[Inputs]) -> str:
    """Of the inputs of all batches, in order: names, tensors and other values."""
    digest = hashlib.sha256()
    for batch in batches:
        for name, value in [*((str(i), v) for i, v in enumerate(batch.args)), *batch.kwargs]:
            digest.update(f"{name}:".encode())
            if isinstance(value, Tensor):
                _add(digest, value)
            else:
                digest.update(repr(value).encode())
    return digest.hexdigest()[:LENGTH]


def _add(digest: hashlib._Hash, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    plain = tensor.detach().cpu().contiguous()
    if plain.numel():
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)  # no copy
