"""Writes files and folders atomically: afterwards they are complete, or as they were before."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["WriteError", "folder_written_beside", "move_into_place", "remedy_of", "written_beside"]


class WriteError(OSError):
    """Says why a file cannot be written, and what to do."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def written_beside(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to. The file is renamed to ``path`` when the block ends.

    A kill or a power cut leaves the old file or the new one. An error leaves the old file, and nothing beside it.

    Args:
        path: the file. Its folder is made if there is none.
        shared: whether other processes may write the same file at the same time. If so, each process writes to its own
            name and deletes what killed processes of this host left in the folder. Otherwise the name is fixed, and
            what a kill left is overwritten.

    Raises:
        WriteError: if the disk is full, or the folder may not be written to.
        OSError: if the file cannot be written for another reason.
    """
    token = f".{_host()}.{os.getpid()}.{secrets.token_hex(4)}" if shared else ""
    partial = path.with_name(f".{path.name}{token}.partial")  # *.ckpt, *.h5 and *.png do not match it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shared:
            _take_away_left(path.parent)
        yield partial
        move_into_place(partial, path)
    except OSError as error:
        remedy = remedy_of(error, path.parent)
        if remedy is None or error.filename not in (None, str(partial), str(path.parent)):
            raise
        written = partial.stat().st_size if partial.exists() else 0
        size = f". {written / 1e6:.1f} MB of it were written; the file before is as it was" if written else ""
        raise WriteError(error.errno, f"{path} cannot be written: {remedy}{size}") from error
    finally:
        with suppress(OSError):  # the path may not be a folder
            partial.unlink(missing_ok=True)


def remedy_of(error: OSError, folder: Path) -> str | None:
    """Returns why a folder cannot be written to, and what to do; None for other errors."""
    code, text = error.errno, str(error)  # some errors of HDF5 are only text
    if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "quota" in text:
        return f"no space is left for it in {folder}. Free some, or name another folder"
    if code == errno.EFBIG or "File too large" in text:
        return f"it is larger than this user or the file system of {folder} allows. Name another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in text:
        return f"this user may not write to {folder}. Name another folder"
    if code in (errno.ENOTDIR, errno.EEXIST):
        return f"{folder} is not a folder. Name another one"
    return None


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())


def _take_away_left(folder: Path) -> None:
    """Deletes the partial files of dead processes of this host. They may be large, and listings hide them."""
    if os.name != "posix":  # on Windows a process cannot be probed safely
        return
    for file in folder.glob(".*.partial"):
        found = re.fullmatch(rf"\..+\.{re.escape(_host())}\.(\d+)\.[0-9a-f]{{8}}\.partial", file.name)
        if found is not None and not _lives(int(found[1])):
            file.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def move_into_place(partial: Path, path: Path) -> None:
    """Syncs a finished file of the same folder to the disk and renames it to ``path``.

    Raises:
        OSError: if it cannot be renamed, or the disk is full.
    """
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    _keep_names(path.parent)


@contextmanager
def folder_written_beside(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``path`` to write files to. It is renamed to ``path`` when the block ends.

    An error leaves nothing. What a kill left is deleted when the same folder is written again.

    Args:
        path: the folder, which must not exist. Its parent is made if there is none.

    Raises:
        FileExistsError: if the folder exists.
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
    """Syncs the names of the files in a folder to the disk."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(folder)  # without it a power cut can undo the renaming
    finally:
        os.close(folder)
