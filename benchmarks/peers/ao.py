"""torchao: `torchao-int8`, Linear layers with int8 weights and rows quantised as they come, then torch.compile.

- `Int8DynamicActivationInt8WeightConfig`: one scale per row and per output channel, and its `reduce_range`, 7 bits where 8 would
  overflow: on CPUs without VNNI, as `should_reduce_range` says.
  https://docs.pytorch.org/ao/main/api_reference/generated/torchao.quantization.Int8DynamicActivationInt8WeightConfig.html.
- The inductor settings that `quantize_` sets by default, "recommended values for better performance with this quantization scheme"
  (same page). Here they are in force while the model compiles, and not left set for the process.
- torch.compile after that, frozen: without it inductor does not find the int8 products that oneDNN has kernels for. "PyTorch 2
  Export Quantization with X86 Backend through Inductor", https://pytorch.org/tutorials/prototype/pt2e_quant_x86_inductor.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch

from benchmarks.peers.common import Job, Peer
from benchmarks.peers.inductor import FREEZING, compiled

# torchao.quantization.utils.recommended_inductor_config_setter, which would set them for good
RECOMMENDED: Mapping[str, Any] = {
    "coordinate_descent_tuning": True,
    "coordinate_descent_check_all_directions": True,
    "force_fuse_int_mm_with_mul": True,
    "fx_graph_cache": True,
    "triton.unique_kernel_names": True,
}


def build_int8(job: Job) -> Peer:
    """Quantised in place, then compiled."""
    quantization, utils = import_module("torchao.quantization"), import_module("torchao.utils")
    narrow = utils.should_reduce_range(torch.device("cpu"))
    form = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=narrow)
    quantization.quantize_(job.model, form)
    return compiled(job.model, job, {**FREEZING, **RECOMMENDED})
