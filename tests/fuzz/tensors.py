"""Tensors of every dtype, layout and device, with values of every size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    *sorted({d for d in vars(torch).values() if isinstance(d, torch.dtype)} - {torch.float32}, key=str),
)
QUANTISED = {torch.qint8, torch.quint8, torch.qint32}
NOT_PLAIN = {torch.quint4x2, torch.quint2x4}  # they come of observers alone


@dataclass(frozen=True)
class Fill:
    """Values.

    Attributes:
        usual: of all rows, one of `FILLS`.
        odd: of one row.
        row: which; there may be fewer.
        seed: of what is random.
    """

    usual: str = "normal"
    odd: str = "normal"
    row: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Of:
    """A tensor: its shape, dtype, values, `LAYOUTS` and `TRAITS`."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    fill: Fill = Fill()
    layout: str = "contiguous"
    trait: str = "plain"


def _one(value: float) -> Callable[[Tensor], Tensor]:
    """Rows with one value among usual ones."""

    def fill(x: Tensor) -> Tensor:
        x = x.clone()
        x.reshape(-1)[:1] = value
        return x

    return fill


_FILL: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "zeros": torch.zeros_like,
    "ones": torch.ones_like,
    "small": lambda x: x * 1e-3,
    "tiny": lambda x: x * 1e-30,
    "denormal": lambda x: x * 1e-40,
    "large": lambda x: x * 50,
    "larger": lambda x: x * 1e6,
    "huge": lambda x: x * 1e30,
    "largest": lambda x: torch.full_like(x, 3e38),
    "signs of the largest": lambda x: 3e38 * x.sign(),
    "nan": _one(torch.nan),
    "inf": _one(torch.inf),
    "-inf": _one(-torch.inf),
    "all nan": lambda x: torch.full_like(x, torch.nan),
    "one large": _one(1e4),
    "one largest": _one(3.4e38),
    "one axis": lambda x: torch.where(torch.arange(x.numel()).reshape(x.shape) % 64 == 5, 8.0, 0.0),
    "ends": lambda x: (torch.arange(x.numel()).reshape(x.shape) % 3 == 0).to(x.dtype),
}
FILLS = tuple(_FILL)
LAYOUTS = (
    "contiguous", "transposed", "expanded", "every second", "reversed axes", "offset", "negative view", "overlapping",
    "sparse coo", "sparse csr", "mkldnn", "nested", "meta",
)  # fmt: skip
TRAITS = ("plain", "requires grad", "inference", "parameter", "subclass", "not a leaf")


class Marked(Tensor):
    """A subclass, as libraries have them."""


def build(of: Of) -> Tensor:
    """The tensor.

    Raises:
        Exception: torch has no tensor of this dtype and layout.
    """
    return _trait(_laid_out(_cast(_values(of), of.dtype), of.layout), of.trait)


def _values(of: Of) -> Tensor:
    x = torch.randn(of.shape, generator=torch.Generator().manual_seed(of.fill.seed))
    filled = _FILL[of.fill.usual](x)
    if of.fill.odd != "normal" and x.dim() > 1 and x.numel():
        rows = filled.reshape(-1, x.size(-1))
        row = of.fill.row % rows.size(0)
        rows[row] = _FILL[of.fill.odd](x.reshape(-1, x.size(-1))[row])
        return rows.reshape(x.shape)
    return filled


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype in NOT_PLAIN:
        raise TypeError(f"{dtype} is of observers alone")
    if dtype in QUANTISED:
        return torch.quantize_per_tensor(x.nan_to_num(0.0, 1.0, -1.0), 0.1, 0, dtype)
    try:
        return x.to(dtype)
    except RuntimeError:  # dtypes that hold bits
        return torch.zeros(x.shape, dtype=torch.uint8).view(dtype)


def _laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values, but where a layout cannot hold them, laid out in another way."""
    last = x.dim() - 1
    if x.dim() == 0 and layout not in ("contiguous", "meta", "negative view", "mkldnn"):
        return x
    made: dict[str, Callable[[], Tensor]] = {
        "contiguous": lambda: x,
        "transposed": lambda: x.transpose(0, last).contiguous().transpose(0, last),
        "expanded": lambda: x[:1].expand(x.shape),
        "every second": lambda: torch.stack([x, x], -1).flatten(-2)[..., ::2],
        "reversed axes": lambda: x.permute(*range(last, -1, -1)).contiguous().permute(*range(last, -1, -1)),
        "offset": lambda: torch.cat([x[:1], x])[1:],
        "negative view": lambda: torch._neg_view(-x),
        "overlapping": lambda: x.reshape(-1).as_strided(x.shape, [1] * x.dim()),
        "sparse coo": x.to_sparse,
        "sparse csr": x.to_sparse_csr,
        "mkldnn": x.to_mkldnn,
        "nested": lambda: torch.nested.nested_tensor(list(x)),
        "meta": lambda: x.to("meta"),
    }
    return made[layout]()


def _trait(x: Tensor, trait: str) -> Tensor:
    if trait == "inference":
        with torch.inference_mode():
            return x.clone()
    if trait == "parameter":
        return nn.Parameter(x, requires_grad=x.is_floating_point())
    if trait == "subclass":
        return x.as_subclass(Marked)
    if trait in ("requires grad", "not a leaf"):
        x = x.detach().requires_grad_()
        return x * 1 if trait == "not a leaf" else x
    return x
