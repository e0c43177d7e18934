"""Saved files that were tampered with."""

import zipfile
from collections.abc import Callable
from pathlib import Path

Change = Callable[[bytes], bytes | None]


def rewritten(path: Path, target: Path, record: str, change: Change) -> Path:
    """Write an archive again, with every record whose name holds `record` changed, or left out where that gives None."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data: bytes | None = old.read(name)
            if record in name:
                data = change(data or b"")
            if data is not None:
                new.writestr(name, data)
    return target
