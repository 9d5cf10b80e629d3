"""One field of a data file, read in runs of rows straight into the array of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.masks import label_map

__all__ = ["Column", "DatasetColumn", "FolderColumn", "MaskColumn", "memory_mapped"]


class Column(Protocol):
    """Rows of one shape and type."""

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copies rows into ``out`` (stop - start, *row_shape); the start is that of a block."""


class DatasetColumn:
    """Reads an HDF5 dataset."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.row_shape: tuple[int, ...] = dataset.shape[1:]
        self.dtype: np.dtype[Any] = dataset.dtype

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        # h5py's read_direct makes no copy, but takes four times as long for a row.
        out[:] = self._dataset[start:stop]


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


def memory_mapped(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """Returns a dataset as an array that takes no memory if it lies in the file in one piece; else it is read."""
    offset = dataset.id.get_offset() if dataset.chunks is None else None
    if offset is None or not dataset.size or dataset.dtype.hasobject:
        values: NDArray[Any] = dataset[()]
        return values
    return np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape))
