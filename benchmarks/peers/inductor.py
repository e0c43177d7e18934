"""PyTorch's own compiler: `compile` (torch.compile) and `aoti` (AOTInductor), both with frozen weights and free shapes.

- `freezing`: weights become constants, laid out for oneDNN. Asked for on CPUs by "AOTInductor: Ahead-Of-Time Compilation for
  Torch.Export-ed Models", https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html; inference only, so without
  gradients. It is no gain everywhere: on an AMD CPU with AVX2 alone, 32 sequences of 63 tokens through MiniLM take `compile` 1.2
  times and `aoti` 1.4 times as long frozen as not.
- `dynamic=True`, `Dim.DYNAMIC`: nothing is compiled again when batch or tokens change. "Dynamic Shapes",
  https://docs.pytorch.org/docs/stable/torch.compiler_dynamic_shapes.html.
- `max_autotune` is left off: on CPUs it is a prototype, https://docs.pytorch.org/tutorials/prototype/max_autotune_on_CPU_tutorial.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.common import Batch, Job, Peer, exported, one_row, torch_threads

FREEZING: Mapping[str, Any] = {"freezing": True}


def build_compile(job: Job) -> Peer:
    """torch.compile."""
    return compiled(job.model, job)


def build_aoti(job: Job) -> Peer:
    """Exported, compiled to a library ahead of time, and loaded."""
    inductor, config = import_module("torch._inductor"), import_module("torch._inductor.config")
    # the compiler writes what it compiled for into this setting
    with _own_cache(job), config.patch({"aot_inductor.metadata": {}}):
        package = inductor.aoti_compile_and_package(
            exported(job), package_path=str(job.folder / "model.pt2"), inductor_configs=dict(FREEZING)
        )
        runner: Any = inductor.aoti_load_package(package)
    return _called(runner, job.threads)


def compiled(model: nn.Module, job: Job, settings: Mapping[str, Any] = FREEZING) -> Peer:
    """A module compiled with inductor's settings, once for batches and once for a batch of one, which torch keeps apart.

    Args:
        model: what to compile.
        job: the threads that the kernels are made for, the example, and where the compiler's files go.
        settings: of `torch._inductor.config`, in force while it compiles: as `options=` freezing would be ignored, because it
            starts in Dynamo, which does not read them.
    """
    config = import_module("torch._inductor.config")
    compile_: Any = torch.compile  # isolate_recompiles is in none of its annotated forms
    # isolate_recompiles: other peers that compile the same class must not use up this one's share of compilations
    call = _called(compile_(model, dynamic=True, isolate_recompiles=True), job.threads)
    with _own_cache(job), config.patch(dict(settings)):
        call(job.example)
        call(one_row(job.example))
    return call


def _called(program: Any, threads: int) -> Peer:  # noqa: ANN401  (a compiled module, or a loaded package)
    def call(batch: Batch) -> Tensor:
        with torch.no_grad(), torch_threads(threads):
            output: Tensor = program(**{name: _plain(values) for name, values in batch.items()})
            return output

    return call


def _plain(values: Tensor) -> Tensor:
    """[batch, tokens or features] with the strides that it was compiled for: others would be a reason to compile again."""
    if values.stride() == (values.size(1), 1):
        return values
    return values.clone(memory_format=torch.contiguous_format)


def _own_cache(job: Job) -> Any:  # noqa: ANN401  (torch's own context manager, not annotated)
    """The compiler's files in the job's folder, for a while; a compiler that is not there fails here, before any work."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

    get_cpp_compiler()
    return temporary_cache_dir(str(job.folder / "inductor"))
