"""What machine this is: words for the foot of a table, and the capabilities that decide which kernels are any good here.

torch's probes read the processor. oneDNN, which does the products, may be capped below it (`ONEDNN_MAX_CPU_ISA`), and torch's own
vector code too (`ATEN_CPU_CAPABILITY`); both are taken into account, so that a lesser CPU can be simulated.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from dendrofx.machine.cores import crowded
from dendrofx.runtime.fbgemm import fbgemm_exact

# What oneDNN may use under each cap; without a cap, everything.
_VNNI_CAPS = ("VNNI", "BF16", "FP16", "AMX", "AVX10", "ALL", "DEFAULT")
_BF16_CAPS = ("CORE_BF16", "CORE_FP16", "AMX", "AVX10", "ALL", "DEFAULT")
_AMX_CAPS = ("AMX", "ALL", "DEFAULT")


@dataclass(frozen=True)
class Capability:
    """What this CPU can do natively.

    Attributes:
        architecture: `x86_64`, `aarch64`, ...
        avx2, avx512: vector width of torch's own kernels.
        vnni: 8-bit products that accumulate without saturation (AVX-512 VNNI).
        bf16: native bfloat16 products (AVX-512 BF16).
        amx: tile products.
        int8_exact: `torch._int_mm` gets products of full 8-bit operands right, as tried on this machine; without VNNI
            oneDNN's pair sums overflow 16 bits.
        fbgemm: the product of 8-bit rows and 7-bit weights that is fast without VNNI is here and exact, as tried too.

    Example:
        >>> dendrofx.capability().avx2
    """

    architecture: str
    avx2: bool
    avx512: bool
    vnni: bool
    bf16: bool
    amx: bool
    int8_exact: bool
    fbgemm: bool = False

    def __str__(self) -> str:
        has = [n for n in ("avx2", "avx512", "vnni", "bf16", "amx") if getattr(self, n)]
        return f"{self.architecture} with {', '.join(has) or 'no vector extensions'}"

    def differs(self, other: Capability) -> str:
        """Say how `other` differs: `vnni True here, False there`; empty when it does not."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{name} {mine[name]} here, {theirs[name]} there" for name in mine if mine[name] != theirs[name]
        )


def capability() -> Capability:
    """Return what this machine can do, under the caps of its environment.

    Example:
        >>> print(dendrofx.capability())
    """
    cap = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL").upper()
    level = torch.backends.cpu.get_cpu_capability()
    avx512 = torch.cpu._is_avx512_supported() and "AVX512" in level
    wide = _allowed(cap, ("AVX512", "AVX10", "ALL", "DEFAULT"))
    return Capability(
        architecture=platform.machine(),
        avx2=torch.cpu._is_avx2_supported() and ("AVX2" in level or "AVX512" in level),
        avx512=avx512,
        vnni=torch.cpu._is_vnni_supported() and _allowed(cap, _VNNI_CAPS) and wide,
        bf16=torch.cpu._is_avx512_bf16_supported() and _allowed(cap, _BF16_CAPS) and wide,
        amx=torch.cpu._is_amx_tile_supported() and _allowed(cap, _AMX_CAPS),
        int8_exact=_int8_exact(),
        fbgemm=fbgemm_exact(),
    )


def _allowed(cap: str, names: tuple[str, ...]) -> bool:
    return any(name in cap for name in names)


@cache
def _int8_exact() -> bool:
    """Return whether the largest 8-bit operands multiply exactly."""
    a = torch.full((32, 64), 127, dtype=torch.int8)
    b = torch.full((32, 64), 127, dtype=torch.int8)
    return all(bool((torch._int_mm(x, b.t()) == x.int() @ b.t().int()).all()) for x in (a, -a))


def describe_machine() -> dict[str, str]:
    """Return the CPU, its cores and vector instructions, versions, and whether more wants to run than there are cores.

    Example:
        >>> describe_machine()["crowded"]  # see `machine/cores.py`; empty where there is room
        '8 threads on 2 cores: OMP_NUM_THREADS=2'
    """
    return {
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "crowded": crowded(torch.get_num_threads()),
    }


def cpu_name() -> str:
    """Return the CPU's name as the system has it, `AMD EPYC` say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
