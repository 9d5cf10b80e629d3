"""Reads ``.npz`` files: uncompressed arrays are memory-mapped, compressed ones are unpacked once."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.chunks import ArrayRows, Rows
from iodine_pl.datamodules.hdf5.columns import as_bytes
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.layouts import IMAGES, LABELS, Fields, pixel_columns, runs
from iodine_pl.datamodules.hdf5.resizing import CropResize

__all__ = ["npz_fields"]

_LOCAL_HEADER = 30  # bytes before the name of a member; its last two numbers are the lengths of name and extra field
_DAMAGE = (OSError, EOFError, BadZipFile, NotImplementedError, zlib.error, struct.error)
_PIECE = 16 << 20  # bytes unpacked at a time


def npz_fields(path: Path, view: CropResize) -> Fields:
    """Opens a pair of arrays such as ``images`` (N, C, H, W), float in [0, 1], and ``labels`` (N, H, W).

    Raises:
        SceneFileError: if an array is missing, damaged or of another kind; it names file and array.
    """
    stored: dict[str, Rows] = {}
    try:
        with ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in (*IMAGES, *LABELS):
                    try:
                        stored[name] = _rows(path, archive, info)
                    except ValueError as error:
                        raise SceneFileError(f"{path}: {name} cannot be read: {error}") from error
    except _DAMAGE as error:
        raise SceneFileError(f"{path} cannot be opened as .npz ({error}). Give a whole one") from error
    columns, length = pixel_columns(stored, f"{path}", view)
    return Fields(length, runs(stored.values(), length, ours=False), columns)


def _rows(path: Path, archive: ZipFile, info: ZipInfo) -> Rows:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        at = file.tell()
    if dtype.kind not in "biuf":
        raise ValueError(f"it is {dtype}, not numbers")
    if info.file_size - at != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError(f"it is not as long as its shape {shape} {dtype} says")
    if info.compress_type == ZIP_STORED:
        order: Literal["F", "C"] = "F" if fortran else "C"
        return ArrayRows(np.asarray(np.memmap(path, dtype, "r", _start(path, info) + at, shape, order)))
    if fortran or not shape:
        raise ValueError("it is compressed and in Fortran order. Save it anew by np.savez")
    return _UnpackedRows(path, info, shape, dtype)


class _UnpackedRows:
    """Rows of a compressed array, which is unpacked to memory at the first use; floats in [0, 1] become uint8."""

    chunk = 1

    def __init__(self, path: Path, info: ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self._info, self._stored = path, info, dtype
        self._array: NDArray[Any] | None = None
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(np.uint8) if dtype.kind == "f" else dtype

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        if self._array is None:
            try:
                self._array = self._unpacked()
            except (*_DAMAGE, ValueError) as error:
                raise SceneFileError(f"{self._path}: {self._info.filename} cannot be read: {error}") from error
        return ArrayRows(self._array).read(start, stop, out)

    def _unpacked(self) -> NDArray[Any]:
        values = np.empty(self.shape, self.dtype)
        step = max(1, _PIECE // max(1, values[:1].size * self._stored.itemsize))
        with ZipFile(self._path) as archive, archive.open(self._info) as file:
            _header(file)
            for start in range(0, len(values), step):
                part = values[start : start + step]
                content = file.read(part.size * self._stored.itemsize)
                if len(content) != part.size * self._stored.itemsize:
                    raise EOFError("it is cut off")
                piece = np.frombuffer(content, self._stored).reshape(part.shape)
                part[...] = as_bytes(piece) if self._stored.kind == "f" else piece
        return values


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return read(file)
    except (TokenError, SyntaxError) as error:  # NumPy reads the header as Python
        raise ValueError(f"its header is damaged ({error})") from error


def _start(path: Path, info: ZipInfo) -> int:
    """Returns the offset of a member's content in the file."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)
