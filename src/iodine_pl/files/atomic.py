"""The one way to write a file, or a folder of files: after it, all is whole or as it was before."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["folder_written_beside", "move_into_place", "written_beside"]


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
    _keep_names(path.parent)


@contextmanager
def folder_written_beside(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``path`` to write files to. It takes the name ``path`` when the block ends.

    An error leaves nothing. What a kill left is deleted when the same folder is written again.

    Args:
        path: the folder, which must not exist. Its own folder is made if there is none.

    Raises:
        FileExistsError: if there is one.
        OSError: if something cannot be written.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already: delete it, or name another folder")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for child in partial.iterdir():
            with child.open("rb+") as file:
                os.fsync(file.fileno())
        _keep_names(partial)
        os.rename(partial, path)
        _keep_names(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep_names(path: Path) -> None:
    """Brings the names of the files in a folder to the disk."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(folder)  # without it a power cut can undo the renaming
    finally:
        os.close(folder)
