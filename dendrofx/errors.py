"""The errors dendrofx raises. Each message quotes what was given and names the next step."""

from __future__ import annotations


class DendrofxError(Exception):
    """Base of every error raised on purpose by dendrofx."""


class InputError(DendrofxError, ValueError):
    """An argument, a model or a calibration set that cannot be used as given."""


class PlanError(InputError):
    """A plan that cannot be read, or that belongs to another model, other data, another machine or another version."""


class ArtifactError(InputError):
    """A file that `dendrofx.save` did not write, that was changed or damaged since, or that another version wrote."""


class CertificateError(ArtifactError):
    """A certificate that cannot be read, or that belongs to another module."""


class CaptureError(DendrofxError):
    """The model could not be turned into a graph that computes the same function."""


class PassError(DendrofxError):
    """A graph pass failed or broke its own claim.

    Attributes:
        graph: readable text of the graph as it entered the pass.
    """

    def __init__(self, message: str, graph: str = "") -> None:
        super().__init__(message)
        self.graph = graph
