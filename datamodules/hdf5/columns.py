"""One field of a data file, read in runs of rows straight into the array of a batch."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from iodine_pl.datamodules.hdf5.errors import SceneFileError

__all__ = [
    "Column",
    "DatasetColumn",
    "FolderColumn",
    "MaskColumn",
    "label_map",
    "lone_membership",
    "membership_map",
    "memory_mapped",
]


_CAN_READ_PAST_HDF5 = hasattr(os, "preadv") and hasattr(h5py.h5d.DatasetID, "chunk_iter")  # not on every system


class Column(Protocol):
    """Rows of one shape and type."""

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copies rows into ``out`` (stop - start, *row_shape); the start is that of a block."""


class DatasetColumn:
    """Reads an HDF5 dataset; where its chunks are runs of rows, stored plain or by gzip, past HDF5's own pipeline, and
    where each row is a chunk, plain, past HDF5 altogether: two and ten times as fast."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.row_shape: tuple[int, ...] = dataset.shape[1:]
        self.dtype: np.dtype[Any] = dataset.dtype
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        chunks = dataset.chunks
        self._gzip = filters == [h5py.h5z.FILTER_DEFLATE]
        self._chunk = chunks if chunks and chunks[1:] == self.row_shape and (self._gzip or not filters) else None
        self._chunk_bytes = int(np.prod(chunks)) * self.dtype.itemsize if chunks else 0
        self._read_chunk = dataset.id.read_direct_chunk
        plain_rows = self._chunk is not None and not filters and chunks[0] == 1 and dataset.file.userblock_size == 0
        self._handle = dataset.file.id.get_vfd_handle() if plain_rows and _CAN_READ_PAST_HDF5 else None
        self._offsets: NDArray[np.int64] | None = None
        self._zeros = (0,) * len(self.row_shape)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        if self._chunk is None or start % self._chunk[0] or stop - start > self._chunk[0]:
            out[:] = self._dataset[start:stop]
            return
        if self._handle is not None:
            if self._offsets is None:
                self._offsets = self._find_rows()
            if (
                self._offsets[start]
                and os.preadv(self._handle, [out.data], int(self._offsets[start])) == self._chunk_bytes
            ):
                return
        where = (start, *self._zeros)
        if not self._gzip and out.nbytes == self._chunk_bytes:
            self._read_chunk(where, out=out.reshape(-1).view(np.uint8))
            return
        skipped, raw = self._read_chunk(where)
        if self._gzip and not skipped:
            raw = zlib.decompress(raw, bufsize=self._chunk_bytes)
        out[:] = np.frombuffer(raw, self.dtype).reshape(self._chunk)[: stop - start]

    def _find_rows(self) -> NDArray[np.int64]:
        """Returns where in the file each row lies; 0 if it was never written."""
        offsets = np.zeros(len(self._dataset), dtype=np.int64)

        def note(chunk: Any) -> None:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

        self._dataset.id.chunk_iter(note)
        return offsets


class MaskColumn:
    """Joins stored masks (N, L, H, W) or (N, L, H, W, 1) to the label map of each scene while reading."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._masks = DatasetColumn(dataset)
        self._name = f"{dataset.file.filename}: {dataset.name}"
        self.row_shape = dataset.shape[2:4]
        self.dtype = np.dtype(np.uint8)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        masks = np.empty((stop - start, *self._masks.row_shape), self._masks.dtype)
        self._masks.read(start, stop, masks)
        for i, mask in enumerate(masks.reshape(*masks.shape[:4])):
            try:
                out[i] = label_map(mask)
            except ValueError as error:
                raise SceneFileError(
                    f"{self._name}, scene {start + i}: {error}, so that one label map would lose something. Write the "
                    "file anew with MultiObjectWriter, and say by membership what belongs to what"
                ) from error


class FolderColumn:
    """Reads image files."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.dtype = np.dtype(np.uint8)
        self.row_shape: tuple[int, ...] = self._decode(0).shape

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        for i in range(start, stop):
            image = self._decode(i)
            if image.shape != self.row_shape:
                raise SceneFileError(
                    f"{self._paths[i]} is {image.shape}, but {self._paths[0]} is {self.row_shape} (H, W, C): all "
                    "images of a folder must have one size. Resize them"
                )
            out[i - start] = image

    def _decode(self, number: int) -> NDArray[np.uint8]:
        path = self._paths[number]
        try:
            with Image.open(path) as image:
                return np.atleast_3d(np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB")))
        except (OSError, UnidentifiedImageError) as error:
            raise SceneFileError(f"{path} cannot be read as an image ({error}). Replace or remove it") from error


def label_map(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Joins masks (L, H, W) to one map (H, W) of entity numbers, 0 being the first mask, the background.

    Raises:
        ValueError: if some pixel belongs to no entity or to several, as one map would then lose something.
    """
    inside = mask > 0
    owners = inside.sum(axis=0, dtype=np.uint8)
    if not (owners == 1).all():
        raise ValueError(f"{int((owners != 1).sum())} pixels do not belong to exactly one mask")
    label: NDArray[np.uint8] = inside.argmax(axis=0).astype(np.uint8)
    return label


def lone_membership(label: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Returns the membership (...) that a label map stands for: of every pixel the bit of its one entity."""
    bits: NDArray[np.unsignedinteger[Any]] = np.left_shift(dtype.type(1), label, dtype=dtype)
    return bits


def membership_map(mask: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger[Any]]]:
    """Joins any masks (L, H, W), L <= 32, without loss: a label map, and a bit for each entity that a pixel is of.

    The label of a pixel is the last entity it belongs to, as later entities lie in front; 0 if it belongs to none.
    """
    entities = len(mask)
    dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32) if np.iinfo(kind).bits >= entities)
    bits = np.zeros(mask.shape[1:], dtype)
    for entity, inside in enumerate(mask > 0):
        bits |= inside.astype(dtype) << dtype(entity)
    last = entities - 1 - (mask > 0)[::-1].argmax(axis=0)
    return np.where(bits > 0, last, 0).astype(np.uint8), bits


def memory_mapped(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """Returns a dataset as an array that takes no memory if it lies in the file in one piece; else it is read."""
    offset = dataset.id.get_offset() if dataset.chunks is None else None
    if offset is None or not dataset.size or dataset.dtype.hasobject:
        values: NDArray[Any] = dataset[()]
        return values
    return np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape))
