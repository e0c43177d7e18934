"""What a CPU user could pick instead of dendrofx, for timing side by side on the same inputs, in one process.

Each runtime has a file, whose head names its settings and where its documentation recommends them. All of them get the same number
of threads, and take any batch size and number of tokens without building anything again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.peers import ao, inductor, ort, ov
from benchmarks.peers.common import (
    Batch,
    Builder,
    Job,
    Peer,
    PeerUnavailableError,
    one_line,
    one_row,
    quiet,
    scratch,
    torch_threads,
)
from dendrofx.errors import InputError

__all__ = ["FLOAT_PEERS", "PEERS", "PeerUnavailableError", "build_peer"]

# Name -> what builds it, and the packages that it imports, which pip calls the same.
_BUILDERS: dict[str, tuple[Builder, tuple[str, ...]]] = {
    "compile": (inductor.build_compile, ()),
    "aoti": (inductor.build_aoti, ()),
    "onnxruntime": (ort.build_float, ("onnx", "onnxscript", "onnxruntime")),
    "onnxruntime-int8": (ort.build_int8, ("onnx", "onnxscript", "onnxruntime")),
    "openvino": (ov.build_float, ("openvino",)),
    "openvino-bf16": (ov.build_bf16, ("openvino",)),
    "openvino-int8": (ov.build_int8, ("openvino", "nncf")),
    "torchao-int8": (ao.build_int8, ("torchao",)),
}
PEERS: tuple[str, ...] = tuple(_BUILDERS)
FLOAT_PEERS = ("compile", "aoti", "onnxruntime", "openvino")  # those that approximate nothing


def build_peer(
    name: str, model: nn.Module, calibration: Sequence[Mapping[str, Tensor]], threads: int
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Build a peer and try it on a batch and on one sample.

    Args:
        name: one of `PEERS`.
        model: in eval mode, called as `model(**batch)`; returns f32[batch, features]. It is copied, never changed.
        calibration: batches of i64[batch, tokens], or of features; the first is the example, and only `openvino-int8` calibrates.
        threads: that the peer may use.

    Returns:
        A function of such a batch, of any size, that gives f32[batch, features].

    Raises:
        PeerUnavailableError: It cannot run here. The message is the reason, on one line.
        InputError: An unknown name, no calibration batch, or no threads.
    """
    if name not in _BUILDERS:
        raise InputError(f"unknown peer {name!r}: choose from {', '.join(PEERS)}")
    if not calibration or threads < 1:
        raise InputError(f"a peer needs a calibration batch and a thread, got {len(calibration)} and {threads}")
    builder, packages = _BUILDERS[name]
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        raise PeerUnavailableError(f"not installed: {', '.join(absent)}")
    try:
        with quiet(), scratch() as folder, torch_threads(threads), torch.no_grad():
            peer = builder(Job(copy.deepcopy(model), calibration, threads, folder))
            for batch in (calibration[0], one_row(calibration[0])):
                _check(peer, model, batch)
    except PeerUnavailableError:
        raise
    except Exception as error:  # a library may fail in any way, and the others are still to be measured
        raise PeerUnavailableError(one_line(error)) from error
    return peer


def _check(peer: Peer, model: nn.Module, batch: Batch) -> None:
    """Shape, type and finite values; how far they are from the model's is for the caller to measure."""
    given, wanted = peer(batch), model(**batch)
    if given.shape != wanted.shape or given.dtype != torch.float32:
        shape = f"{str(given.dtype).removeprefix('torch.')}{list(given.shape)}"
        raise PeerUnavailableError(f"it gives {shape} where the model gives float32{list(wanted.shape)}")
    if not bool(given.isfinite().all()):
        raise PeerUnavailableError(f"it gives values that are not finite, for {len(given)} sequences")
