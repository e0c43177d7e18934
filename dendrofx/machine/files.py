"""Writing files: whole or not at all, whatever stands at the path."""

from __future__ import annotations

import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dendrofx.errors import InputError


def check_target(path: str | Path, error: type[InputError] = InputError) -> Path:
    """Return the file that a path means, links followed.

    Args:
        path: where a file is to be written; there may be one already.
        error: what is raised.

    Raises:
        InputError: it names no file, but nothing or a folder; or its folder is not there.
    """
    if not isinstance(path, str | Path):
        raise error(f"a path is a string or a pathlib.Path, got {path!r}")
    if not str(path) or "\0" in str(path):
        raise error(f"cannot write to {str(path)!r}: name a file, such as 'model.pt'")
    target = Path(os.path.realpath(path))
    if Path(path).is_dir() or str(path).endswith(("/", os.sep)):
        raise error(f"cannot write to {path}: it is a folder. Name a file")
    if target.is_symlink():
        raise error(f"cannot write to {path}: its links lead in a circle")
    if not _is_special(Path(path)) and not target.parent.is_dir():
        raise error(f"cannot write to {path}: there is no folder {target.parent}. Make it first")
    return target


def write_whole(path: str | Path, content: bytes | str, error: type[InputError] = InputError) -> None:
    """Write beside `path`, then rename: a file is there whole or not at all.

    A link stays, and the file that it points to is written. What is neither a file nor a folder, such as `/dev/null` or a pipe,
    cannot be replaced: it is written into.

    Args:
        path: where; an old file there keeps its permissions.
        content: text is written as UTF-8.
        error: what `check_target` raises.

    Raises:
        InputError: see `check_target`.
        OSError: as the system says, a full disk say; it names `path`, and what was there is as it was.
    """
    target = check_target(path, error)
    data = content.encode() if isinstance(content, str) else content
    try:
        if _is_special(Path(path)):
            Path(path).write_bytes(data)
        else:
            _replace(target, data)
    except OSError as failed:
        raise OSError(failed.errno, f"{failed.strerror or failed} while writing", str(path)) from failed


@contextmanager
def scratch() -> Iterator[str]:
    """Give the path of an empty file that goes with the block: in memory, where a full disk cannot break what writes it (Linux).

    torch's writer of script modules ends the process where it cannot write (torch 2.13).
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryDirectory(prefix="dendrofx") as folder:
            yield str(Path(folder) / "scratch")
        return
    descriptor = os.memfd_create("dendrofx")
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _replace(target: Path, data: bytes) -> None:
    """Have a file of this call's own, in the same folder, take the target's place."""
    part = target.with_name(
        f".{uuid.uuid4().hex}.part"
    )  # a name of its own length: the target's may be as long as names can be
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
