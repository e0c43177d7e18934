"""A model's own picks by place: below 0 torch refuses one, where ONNX and native code count from the end.

Arguments have torch's names: graphs call by them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dendrofx.branchless.checked import checked

BELOW = "a place that is picked by index_select or gather is below 0"


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Pick as `torch.index_select`."""
    return torch.index_select(input, dim, checked(index, index.ge(0).all(), BELOW))


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Pick as `torch.gather`; `sparse_grad` is of training."""
    return torch.gather(input, dim, checked(index, index.ge(0).all(), BELOW))
