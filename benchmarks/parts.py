"""What a routed site costs against its own parts, each measured alone: the overhead of splitting, gathering and scattering.

python -m benchmarks.parts --case tiara --batch 256 1024
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.cases import CASES
from benchmarks.command import Command, deviation, positive, seed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("parts", (__doc__ or "").partition("\n")[0], tuple(CASES), ("digits",))
    command.add_argument("--batch", nargs="+", type=positive, default=[256, 1024], metavar="N", help="rows of a site")
    command.add_argument("--threads", type=positive, default=2, metavar="N")
    command.add_argument("--max-deviation", type=deviation, default=0.01, metavar="X")
    command.add_argument("--seed", type=seed, default=0, metavar="N")
    return command.run(command.parse(argv))


if __name__ == "__main__":
    sys.exit(main())
