"""The errors dendrofx raises. Each message quotes what was given and names the next step."""

from __future__ import annotations


class DendrofxError(Exception):
    """Base of every error raised on purpose by dendrofx.

    Example:
        >>> try:
        ...     dendrofx.load("digits.pt")
        ... except dendrofx.DendrofxError as error:
        ...     print(error)
    """


class InputError(DendrofxError, ValueError):
    """An argument, a model or a calibration set that cannot be used as given.

    Example:
        >>> try:
        ...     dendrofx.transform("model.pt")
        ... except dendrofx.InputError as error:
        ...     print(error)
    """


class PlanError(InputError):
    """A plan that cannot be read, or that belongs to another model, other data, another machine or another version.

    Example:
        >>> try:
        ...     dendrofx.Plan.load("README.md")
        ... except dendrofx.PlanError as error:
        ...     print(error)
    """


class ArtifactError(InputError):
    """A file that `dendrofx.save` did not write, that was changed or damaged since, or that another version wrote.

    Example:
        >>> try:
        ...     dendrofx.load("README.md")
        ... except dendrofx.ArtifactError as error:
        ...     print(error)
    """


class CertificateError(ArtifactError):
    """A certificate that cannot be read, or that belongs to another module.

    Example:
        >>> try:
        ...     dendrofx.certificate("README.md")
        ... except dendrofx.CertificateError as error:
        ...     print(error)
    """


class CaptureError(DendrofxError):
    """The model could not be turned into a graph that computes the same function.

    Example:
        >>> try:
        ...     dendrofx.transform(model, batches[0])
        ... except dendrofx.CaptureError as error:
        ...     print(error)
    """


class PassError(DendrofxError):
    """A graph pass failed or broke its own claim.

    Attributes:
        graph: readable text of the graph as it entered the pass.

    Example:
        >>> try:
        ...     passes.RouteRows().requires(torch.fx.symbolic_trace(model))
        ... except dendrofx.PassError as error:
        ...     print(error)
    """

    def __init__(self, message: str, graph: str = "") -> None:
        super().__init__(message)
        self.graph = graph
