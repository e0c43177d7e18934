"""Saved files that were tampered with."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dendrofx.artifact import archive

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


def resealed(path: Path) -> Path:
    """The file with a seal that fits what is in it: whoever can write a file can write one."""
    seal = archive.sealed(archive.records(path.read_bytes(), path))

    def change(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), "seal": seal}).encode()

    return rewritten(path, path.with_name("resealed.pt"), archive.VERSIONS, change)


class Trap:
    """What Python's pickle would run."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.sprung,))
