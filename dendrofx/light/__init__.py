"""Light branches: approximations of a block that are cheap enough for the easy rows. One file per form."""

from dendrofx.light.bfloat16 import BFloat16
from dendrofx.light.form import LightForm, Precision
from dendrofx.light.int8 import Int8
from dendrofx.light.low_rank import LowRank
from dendrofx.light.prepacked import Prepacked
from dendrofx.light.pruned import Pruned
from dendrofx.light.transposed import Transposed

__all__ = ["LightForm", "Precision", "LowRank", "Pruned", "Int8", "BFloat16", "Prepacked", "Transposed"]
