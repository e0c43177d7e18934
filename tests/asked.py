"""Write the arguments of `transform` flat, as tables of tests and random ones do."""

from dataclasses import fields
from typing import Any

from dendrofx import Options

RARE = frozenset(field.name for field in fields(Options))


def asked(**given: Any) -> dict[str, Any]:
    """Return arguments of `transform`, those that belong into `Options` put there."""
    rare = {name: value for name, value in given.items() if name in RARE}
    kept = {name: value for name, value in given.items() if name not in RARE}
    return {**kept, "options": Options(**rare)} if rare else kept
