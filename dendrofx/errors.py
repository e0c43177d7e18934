"""The errors dendrofx raises. Each message quotes what was given and names the next step."""

from __future__ import annotations


class DendrofxError(Exception):
    """Base of every error raised on purpose by dendrofx."""


class InputError(DendrofxError, ValueError):
    """An argument, a model or a calibration set that cannot be used as given."""


class CaptureError(DendrofxError):
    """The model could not be turned into a graph that computes the same function."""


class NotYetError(DendrofxError, NotImplementedError):
    """A documented option that this version does not have."""


class PassError(DendrofxError):
    """A graph pass failed or broke its own claim.

    Attributes:
        graph: readable text of the graph as it entered the pass.
    """

    def __init__(self, message: str, graph: str = "") -> None:
        super().__init__(message)
        self.graph = graph
