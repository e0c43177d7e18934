"""Violations that were found once and have been mended, each as small as it gets; each is refused now."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tests.fuzz.tensors import Of

_SOME = Of((2, 3, 64))


@dataclass(frozen=True)
class Case:
    """A call that once went wrong.

    Attributes:
        kind: of the module, as `tests.made` names it.
        arguments: see `tests.fuzz.draws.Call`.
        found: what it came to.
        says: what is in the error by which it is refused now.
    """

    kind: str
    arguments: tuple[Of | str, ...]
    found: str
    says: str


_NOT_DENSE = "rows are a sparse, nested or mkldnn tensor, site"
_MASK = "the mask of dead rows is a sparse, nested, mkldnn, quantised or meta tensor, it takes"

CASES: dict[str, Case] = {
    "one sample without its axis": Case(
        "cascade",
        (Of((64,)),),
        "The size of tensor a (5) must match the size of tensor b (64)",
        says="input.dim() == 2",
    ),
    "no tokens": Case(
        "cascade", (Of((2, 0, 64)),), "amin(): Expected reduction dim 1 to have non-zero size", says="input.dim()"
    ),
    "samples of several decisions": Case(
        "cascade",
        (_SOME,),
        "an answer that no certificate is about: its samples had one decision",
        says="input.dim() == 2",
    ),
    "sparse rows": Case(
        "mlp", (Of((3, 64), layout="sparse coo"),), "Could not run 'aten::linalg_vector_norm.out'", says=_NOT_DENSE
    ),
    "sparse rows in 8 bits": Case(
        "residual",
        (Of((3, 64), layout="sparse csr"),),
        "resize_reduction: support for output with SparseCsr",
        says="rows are",
    ),
    "rows laid out by mkldnn": Case(
        "no-gate", (Of((3, 64), layout="mkldnn"),), "Could not run 'aten::sum.IntList_out'", says=_NOT_DENSE
    ),
    "nested samples": Case(
        "padded",
        (Of((2, 3, 64), layout="nested"), Of((2, 3))),
        "Could not run 'aten::permute'",
        says="a value with dead rows is a sparse, nested or mkldnn tensor",
    ),
    "a sparse mask": Case(
        "padded", (_SOME, Of((2, 3), layout="sparse coo")), "Could not run 'aten::ne.Scalar'", says=_MASK
    ),
    "a mask without values": Case(
        "padded", (_SOME, Of((2, 3), layout="meta")), "Tensor.item() cannot be called on meta tensors", says=_MASK
    ),
    "a quantised mask": Case("padded", (_SOME, Of((2, 3), torch.quint8)), "empty_strided not supported", says=_MASK),
    "fewer axes than the mask has": Case(
        "padded", (Of((64,)), Of((2, 3))), "Dimension out of range", says="which does not fit a value of"
    ),
}
