"""A file that is read twice: for its seal, and by torch, which reads a file in half the time of bytes in memory."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dendrofx.errors import ArtifactError

OPEN_FILES = Path("/proc/self/fd")  # of Linux; elsewhere torch is given the bytes


@dataclass(frozen=True)
class Source:
    """The bytes of a file, which is open.

    Attributes:
        path: that it was opened by; another file may stand there by now.
        data: its bytes.
        number: of the open file.
        state: of the file before it was read.
    """

    path: str | Path
    data: bytes
    number: int
    state: os.stat_result

    def for_torch(self) -> str | io.BytesIO:
        """Return a name of the very file that is open, or its bytes."""
        name = OPEN_FILES / str(self.number)
        return str(name) if stat.S_ISREG(self.state.st_mode) and name.exists() else io.BytesIO(self.data)

    def check_unchanged(self) -> None:
        """Raise `ArtifactError` where the file was written to since it was opened; another one in its place does no harm."""
        now = os.fstat(self.number)
        if any(getattr(now, at) != getattr(self.state, at) for at in ("st_size", "st_mtime_ns")):
            raise ArtifactError(f"{self.path} was written to while it was read: load it again")


@contextmanager
def opened_source(path: str | Path) -> Iterator[Source]:
    """Open a file and read it; raise `ArtifactError` where it cannot be read."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
            state, data = os.fstat(file.fileno()), file.read()
        except (OSError, TypeError, ValueError) as failed:
            raise ArtifactError(f"cannot read {path}: {failed}") from failed
        yield Source(path, data, file.fileno(), state)
