"""ONNX Runtime: `onnxruntime` in float32 and `onnxruntime-int8`, dynamically quantised.

- Exported by torch.export, the exporter that PyTorch recommends, in opset 23, the first that has an operator for attention.
  https://docs.pytorch.org/docs/stable/onnx.html.
- The Transformer Model Optimization Tool first, then dynamic quantisation, "recommended for RNNs and transformer-based models"; per
  channel, and on CPUs without VNNI `reduce_range`, which per-channel quantisation generally needs there. "Quantize ONNX Models",
  https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
- `intra_op_num_threads` as given, the rest of the defaults: sequential, all graph optimisations. "Thread management",
  https://onnxruntime.ai/docs/performance/tune-performance/threading.html.
- `session.force_spinning_stop`: threads spin within a call, but not after it, in the time of whatever is timed next.
  onnxruntime_session_options_config_keys.h, "Session options configuration keys".

Symbolic shape inference, optional in that page's pre-processing, gives up on two free sizes and is left out; what quantises matrix
products needs no shapes. Attention itself stays in float32: the quantiser knows only the operator of Microsoft's own domain.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.peers.common import Batch, Job, Peer, exported, saturates

OPSET = 23


def build_float(job: Job) -> Peer:
    """float32."""
    return _session(_optimised(job), job.threads)


def build_int8(job: Job) -> Peer:
    """Weights in int8, activations in uint8 with the scale of each call."""
    onnx, quantization = import_module("onnx"), import_module("onnxruntime.quantization")
    source, target = _optimised(job), job.folder / "int8.onnx"
    graph = onnx.load(source).graph
    quantization.quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=saturates(),
        nodes_to_exclude=[node.name for node in graph.node if node.op_type == "Attention"],
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return _session(target, job.threads)


def _optimised(job: Job) -> Path:
    """The file of the exported model, after the optimisation tool where it is a transformer."""
    optimizer = import_module("onnxruntime.transformers.optimizer")
    plain, optimised = job.folder / "model.onnx", job.folder / "optimised.onnx"
    torch.onnx.export(exported(job), (), plain, dynamo=True, opset_version=OPSET, external_data=False, verbose=False)
    if not job.tokens:
        return plain
    better = optimizer.optimize_model(str(plain), model_type="bert", opt_level=0, use_gpu=False)
    better.save_model_to_file(str(optimised))
    return optimised


def _session(path: Path, threads: int) -> Peer:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(batch: Batch) -> Tensor:
        return torch.from_numpy(session.run(None, {name: values.numpy() for name, values in batch.items()})[0])

    return call
