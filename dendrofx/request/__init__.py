"""What `transform` is called with: its rare options, everything checked, and spellings of the version before."""

from dendrofx.request.options import Options
from dendrofx.request.request import Request

__all__ = ["Options", "Request"]
