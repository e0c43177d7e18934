"""Why an exporter failed, in one line."""

from __future__ import annotations

import re

from dendrofx.graph.show import first_line

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def cause(error: BaseException) -> str:
    """Return the first line of the first error of a chain, which torch's exporters wrap in others, without colours."""
    seen = {id(error)}
    while (before := error.__cause__ or error.__context__) is not None and id(before) not in seen:
        seen.add(id(before))
        error = before
    return _COLOURS.sub("", first_line(error)).strip().rstrip(".")
