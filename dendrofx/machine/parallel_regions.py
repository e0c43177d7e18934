"""Parallel regions: how many a call opens, counted from its operators, with no clock.

At a region the calling thread hands work to the others and waits for the last of them. On a machine of one's own that takes
microseconds; beside busy processes the other thread may have no core, and the call waits a scheduler's time slice, milliseconds.

Which operators open one, by their values or multiply-adds, as counted on torch 2.13 with 2 threads by a library between torch and
`GOMP_parallel`, through which ATen, MKL, oneDNN and fbgemm go alike (`tests/machine/test_parallel_regions.py` counts again):

    ATen        pointwise, copies, reductions, gathering: above 32768 values (`at::internal::GRAIN_SIZE`); round, floor, ceil: 2048;
                softmax, layer norm, max with indices: two rows; attention: always; x[index]: above 3000
    MKL         exp, erf, tanh, log, sqrt: 100 values; a product: 2^17 multiply-adds (2^16 to 2^18, by the CPU's instructions);
                of one row or column 2^13 to 2^15; a batch of products: always
    oneDNN      gelu: two values; laid-out products: above 16 rows, or weights of more than 4096; 8-bit products: 2^15.5
                multiply-adds, of one row 2^17; bfloat16 always
    fbgemm      a product of 8-bit rows: always, one row included

A Linear with a bias copies that first, which is one more above 32768 outputs. MKL's and oneDNN's limits are theirs to change: near
them the count may be one off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GRAIN, SMALL_GRAIN, INDEX_GRAIN, VML_VALUES = 32768, 2048, 3000, 100
PRODUCT_MACS, VECTOR_MACS, INT8_MACS = 2**17, 2**14, 47_000
SMALL_BATCH_MACS = 400  # of one product of a batch: below it ATen multiplies by itself
PACKED_ROWS, PACKED_WEIGHTS = 16, 4096
Rule = Callable[[Sequence[Any], Tensor], int]


def count_regions(call: Callable[[], object], threads: int | None = None) -> int:
    """Return the parallel regions that one call opens.

    Args:
        call: eager or by TorchScript; what a compiler made of operators is not seen.
        threads: that it may use, by default torch's own; one thread opens none.

    Example:
        >>> count_regions(lambda: nn.Linear(1024, 1024)(torch.randn(256, 1024)), threads=2)
        2
    """
    if (torch.get_num_threads() if threads is None else threads) == 1:
        return 0
    with torch.no_grad(), _Counting() as counting:
        call()
    return int(counting.regions)


class _Counting(TorchDispatchMode):
    """Sees every operator that runs, with its tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.regions = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run an operator, and count what it opens."""
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) and out else out
        name = func.name().split("::")[-1].split(".")[0]
        if isinstance(first, Tensor) and not (func.is_view or name in _NOTHING):
            self.regions += _RULES.get(name.removesuffix("_"), _values)(args, first)
        return out


_NOTHING = frozenset(("empty", "new_empty", "empty_like", "empty_strided", "_unsafe_view", "detach", "lift_fresh"))


def _above(grain: int) -> Rule:
    return lambda args, out: int(out.numel() > grain)


_values = _above(GRAIN)


def _reduced(args: Sequence[Any], out: Tensor) -> int:
    return int(args[0].numel() >= GRAIN)


def _norm(args: Sequence[Any], out: Tensor) -> int:
    return int(out.numel() > 1 and args[0].numel() > GRAIN)


def _rows(args: Sequence[Any], out: Tensor) -> int:
    """Operators that share their rows among the threads, however short these are."""
    return int(args[0].numel() > args[0].size(-1)) if args[0].dim() else 0


def _joined(args: Sequence[Any], out: Tensor) -> int:
    return sum(t.numel() > GRAIN for t in args[0]) if out.numel() > GRAIN else 0


def _mm(args: Sequence[Any], out: Tensor) -> int:
    a, b = args[-2:]
    least = VECTOR_MACS if 1 in (a.size(0), b.size(1)) else PRODUCT_MACS
    return int(a.size(0) * b.numel() > least)


def _addmm(args: Sequence[Any], out: Tensor) -> int:
    one_row = out.size(0) == 1
    return _mm(args[1:3], out) + (0 if one_row else _values(args, out))


def _bmm(args: Sequence[Any], out: Tensor) -> int:
    a, b = args[-2:]
    if a.size(0) == 1:
        return _mm((a[0], b[0]), out)
    return int(a[0].numel() * b.size(2) >= SMALL_BATCH_MACS)


def _packed(args: Sequence[Any], out: Tensor) -> int:
    rows, width = args[0].size(0), args[0].size(-1)
    return int(rows > PACKED_ROWS or width * out.size(-1) > PACKED_WEIGHTS)


def _int8(args: Sequence[Any], out: Tensor) -> int:
    rows = args[0].size(0)
    return int(rows * args[1].numel() > (INT8_MACS if rows > 1 else PRODUCT_MACS))


def _fbgemm(args: Sequence[Any], out: Tensor) -> int:
    return 1


def _attention(args: Sequence[Any], out: Tensor) -> int:
    return 1


def _bfloat16(rule: Rule, operands: slice) -> Rule:
    """Products in bfloat16 are oneDNN's."""
    return lambda args, out: 1 if args[operands][0].dtype == torch.bfloat16 else rule(args, out)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("round", "floor", "ceil", "log1p", "expm1"), _above(SMALL_GRAIN)),
    **dict.fromkeys(("exp", "erf", "erfc", "tanh", "log", "log2", "sqrt", "sin", "cos"), _above(VML_VALUES - 1)),
    **dict.fromkeys(("sum", "mean", "amax", "amin", "aminmax", "all", "any"), _reduced),
    **dict.fromkeys(("_softmax", "_log_softmax", "native_layer_norm", "max", "min"), _rows),
    **dict.fromkeys(("index", "index_put"), _above(INDEX_GRAIN)),
    "linalg_vector_norm": _norm,
    "gelu": _above(1),
    "cat": _joined,
    "mm": _bfloat16(_mm, slice(0, 1)),
    "addmm": _bfloat16(_addmm, slice(1, 2)),
    "bmm": _bmm,
    "baddbmm": _bmm,
    "_linear_pointwise": _packed,
    "_int_mm": _int8,
    "linear_with_input_q_dq_qweight_dq_output_fp32": _fbgemm,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
}
