"""Why an exporter failed, in one line."""

from __future__ import annotations

import re

from dendrofx.graph.show import first_line

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause(error: BaseException) -> str:
    """Return the first line of the first error of a chain, which torch's exporters wrap in others, without colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _COLOURS.sub("", first_line(error)).strip().rstrip(".")
