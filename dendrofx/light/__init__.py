"""Light branches: approximations of a block that are cheap enough for the easy rows. One file per form."""

from dendrofx.light.form import LightForm
from dendrofx.light.low_rank import LowRank
from dendrofx.light.pruned import Pruned

__all__ = ["LightForm", "LowRank", "Pruned"]
