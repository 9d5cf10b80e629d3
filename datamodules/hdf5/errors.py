"""Opens and writes data files, with errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from iodine_pl.datamodules.hdf5.words import words_of
from iodine_pl.files import atomic

__all__ = ["SceneFileError", "damage_told", "made_here", "open_hdf5", "written_beside"]


class SceneFileError(ValueError):
    """Says what is wrong with a data file, and what to do."""


def open_hdf5(path: Path) -> h5py.File:
    """Opens an HDF5 file for reading.

    Raises:
        SceneFileError: if it is missing, forbidden, still being written, empty, cut off or of another kind.
    """
    if not path.is_file():
        raise SceneFileError(f"there is no data file {path}")
    if not os.access(path, os.R_OK):
        raise SceneFileError(f"{path} may not be read by this user: change its permissions, or make a copy")
    if path.stat().st_size == 0:
        raise SceneFileError(f"{path} is an empty file. Give one with scenes")
    try:
        # HDF5 2 would cache 8 MiB of unpacked chunks of each dataset, in addition to the reader's cache.
        return h5py.File(path, "r", rdcc_nbytes=1 << 20)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise SceneFileError(f"{path} is being written by another process: wait until that is done") from error
        raise SceneFileError(
            f"{path} cannot be opened as HDF5 ({error}). It is cut off, still being written or another kind of file. "
            "Give a whole one"
        ) from error


@contextmanager
def damage_told(where: str) -> Iterator[None]:
    """Turns an error of any class that HDF5 raises on damaged bytes into one that names the file.

    Args:
        where: names the file and the part of it.

    Raises:
        SceneFileError: instead of the error; a SceneFileError is passed on.
    """
    try:
        yield
    except SceneFileError:
        raise
    except (KeyError, MemoryError, OSError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        words = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise SceneFileError(f"{where} cannot be read ({words}). The file is damaged: give a whole copy") from error


def made_here(file: h5py.File) -> bool:
    """Tells whether this package generated or converted a file and can do it again; False if the file is damaged."""
    try:
        return "".join(words_of(file.attrs.get("source", ""))).startswith("generated: ") or "complete" in file.attrs
    except (OSError, RuntimeError):
        return False


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to, as :func:`iodine_pl.files.atomic.written_beside` does.

    Several processes may write the same file.

    Raises:
        SceneFileError: if the folder cannot be written to, or the disk is full.
    """
    try:
        with atomic.written_beside(path, shared=True) as partial:
            yield partial
    except atomic.WriteError as error:
        larger = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise SceneFileError(f"{error}{'. Or ask for fewer images' if larger else ''}") from error
