"""The one way to write a file: after it, the file is whole or as it was before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["move_into_place", "written_beside"]


@contextmanager
def written_beside(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to. The file there takes the name ``path`` when the block ends.

    A kill or a power cut leaves the old file or the new one. An error leaves the old file, and nothing beside it.

    Args:
        path: the file. Its folder is made if there is none.
        shared: whether other processes may write the same file at the same time. Each then writes to a name of its own.
            Otherwise the name is fixed, and what a kill left is written over.

    Raises:
        OSError: if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token = f".{secrets.token_hex(4)}" if shared else ""
    partial = path.with_name(f".{path.name}{token}.partial")  # *.ckpt, *.h5 and *.png do not match it
    try:
        yield partial
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_into_place(partial: Path, path: Path) -> None:
    """Renames a finished file of the same folder to ``path``, after its content is on the disk.

    Raises:
        OSError: if it cannot be renamed, or the disk is full.
    """
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(folder)  # without it a power cut can undo the renaming
    finally:
        os.close(folder)
