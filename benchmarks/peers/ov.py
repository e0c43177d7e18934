"""OpenVINO: `openvino` in float32, `openvino-bf16` and `openvino-int8`, quantised by NNCF.

- `convert_model` of an exported program, one of the four things it takes and the one whose free sizes are proven. "Converting a
  PyTorch Model", https://docs.openvino.ai/2026/openvino-workflow/model-preparation/convert-model-pytorch.html.
- `PERFORMANCE_HINT=LATENCY`, for one call at a time: one stream with all of `INFERENCE_NUM_THREADS`. "High-level Performance
  Hints", https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/high-level-performance-hints.html.
- `INFERENCE_PRECISION_HINT`: f32 or bf16; for int8 it is left alone, since it says how the rest runs. "Precision Control",
  https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html.
- `nncf.quantize(model_type=TRANSFORMER)` on up to 300 samples, the number in "Basic Quantization Flow", under
  https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html. A sample is one
  sequence without padding: for larger batches NNCF warns of inaccurate ranges. `overflow_fix` stays at its default; halving all
  ranges made the deviation no smaller on a CPU without VNNI.
- `share_inputs`: what is passed in is not copied. "OpenVINO Runtime Python API Advanced Inference",
  https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-request/python-api-advanced-inference.html.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.common import Batch, Job, Peer, PeerUnavailableError, exported, sequences

PRECISION = "INFERENCE_PRECISION_HINT"
SAMPLES = 300


def build_float(job: Job) -> Peer:
    """float32."""
    return _request(_compiled(_converted(job), job.threads, "f32"))


def build_bf16(job: Job) -> Peer:
    """bfloat16, refused where OpenVINO would run something else or emulate it."""
    network = _compiled(_converted(job), job.threads, "bf16")
    ran, can = _name(network.get_property(PRECISION)), _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if ran != "bfloat16" or "BF16" not in can:
        raise PeerUnavailableError(
            f"no native bf16 on this CPU (it has {', '.join(can)}); OpenVINO chose {ran} instead"
        )
    return _request(network)


def build_int8(job: Job) -> Peer:
    """Linear layers and attention in int8, with ranges from the calibration batches."""
    nncf = import_module("nncf")
    rows = [{n: v.numpy() for n, v in row.items()} for row in sequences(job.calibration, SAMPLES)]
    kind = nncf.ModelType.TRANSFORMER if job.tokens else None
    graph = nncf.quantize(_converted(job), nncf.Dataset(rows), model_type=kind)
    return _request(_compiled(graph, job.threads))


def _core() -> Any:  # noqa: ANN401  (like all of the library below: its types are not known without it)
    return import_module("openvino").Core()


def _converted(job: Job) -> Any:  # noqa: ANN401
    return import_module("openvino").convert_model(exported(job))


def _compiled(graph: Any, threads: int, precision: str = "") -> Any:  # noqa: ANN401
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    return _core().compile_model(graph, "CPU", settings | ({PRECISION: precision} if precision else {}))


def _name(precision: Any) -> str:  # noqa: ANN401
    """`bfloat16` of OpenVINO's type, which prints as `<Type: 'bfloat16'>`."""
    return str(precision).split("'")[1]


def _request(network: Any) -> Peer:  # noqa: ANN401
    request = network.create_infer_request()

    def call(batch: Batch) -> Tensor:
        feeds = {name: values.numpy() for name, values in batch.items()}
        return torch.from_numpy(request.infer(feeds, share_inputs=True)[0])  # results are copied out by default

    return call
