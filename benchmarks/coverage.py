"""Do certificates hold? Violations of budgets over many draws of the calibration samples, on real models and data.

python -m benchmarks.coverage [--case tiara minilm digits] [--draws 200] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import Command, positive

POOLS = ("tiara", "minilm", "digits")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("coverage", "Do certificates hold?", POOLS, POOLS, several=True)
    command.add_argument("--draws", type=positive, default=200, metavar="N")
    command.add_argument("--json", type=Path, metavar="FILE")
    return command.run(command.parse(argv))


if __name__ == "__main__":
    sys.exit(main())
