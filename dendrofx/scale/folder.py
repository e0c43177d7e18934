"""The folder of a run's files, which is one run's alone: what is deleted from it, at the end, is what that run wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dendrofx.errors import InputError
from dendrofx.machine.needed import needed
from dendrofx.scale.parts import EXTRA, WHAT

CLAIM = ".dendrofx-run"
OWN = re.compile(r"part-(\d{6,}-)?[0-9a-f]{32}\.parquet|\.[0-9a-f]{32}\.part")  # see `Worker`, `write_whole`


@contextmanager
def claimed(path: str | Path | None) -> Iterator[Path | None]:
    """Give an empty folder for the files of a run, made where it is missing, which no other run takes meanwhile; None for None.

    A file says that it is taken. It goes with the block, but not with a process that is killed.

    Raises:
        InputError: something is in it, another run has it, or it cannot be written to.
    """
    if path is None:
        yield None
        return
    needed("pyarrow", WHAT, EXTRA)
    folder = Path(path)
    _claim(folder)
    try:
        if found := sorted(p.name for p in folder.iterdir() if p.name != CLAIM):
            raise InputError(
                f"{path} holds {found[0]}: name an empty folder, or one that is not there; what a run left that failed, delete"
            )
        yield folder
    finally:
        (folder / CLAIM).unlink(missing_ok=True)


def delete_others(folder: Path, count: Collection[str]) -> None:
    """Delete what attempts that did not end have written: files named as the run's own, but for those that count."""
    for path in folder.iterdir():
        if OWN.fullmatch(path.name) and path.name not in count and path.is_file():
            path.unlink(missing_ok=True)


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(folder / CLAIM, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # one of two runs makes it
    except FileExistsError as error:
        if not folder.is_dir():
            raise InputError(f"cannot write to the folder {folder}: it is a file") from error
        raise InputError(
            f"{folder} belongs to a run that has not ended: name another folder. If that run was killed, delete {CLAIM} and the"
            " other files in it"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
