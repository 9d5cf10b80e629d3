"""One field of a data file, read in ranges of rows directly into the array of a batch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.chunks import Rows
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.masks import label_maps
from iodine_pl.datamodules.hdf5.resizing import CropResize

__all__ = ["Column", "ImageColumn", "MapColumn", "MaskColumn", "PlainColumn"]


class Column(Protocol):
    """Rows of one shape and type."""

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copies rows into ``out`` (stop - start, *row_shape); ``start`` is the start of a block."""


class PlainColumn:
    """Reads rows unchanged."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.row_shape = rows.shape[1:]
        self.dtype = rows.dtype

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        self._rows.read(start, stop, out)


class ImageColumn:
    """Converts stored images to (N, H, W, C) uint8: from (N, C, H, W), from floats in [0, 1], cropped and resized.

    Raises:
        SceneFileError: if the crop is not inside the images.
    """

    def __init__(self, rows: Rows, name: str, channels_first: bool, view: CropResize) -> None:
        self._rows, self._name, self._channels_first, self._view = rows, name, channels_first, view
        shape = rows.shape[1:]
        height, width, channels = (*shape[1:], shape[0]) if channels_first else shape
        self.row_shape: tuple[int, ...] = (*view.kept(height, width, name), channels)
        self.dtype = np.dtype(np.uint8)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        try:
            images = as_bytes(self._rows.read(start, stop))
        except ValueError as error:
            raise SceneFileError(f"{self._name}, scenes {start} to {stop - 1}: {error}") from error
        if self._channels_first:
            images = np.moveaxis(images, 1, 3)
        if not self._view:
            out[:] = images
            return
        for i, image in enumerate(images):
            out[i] = self._view.image(image, self._name)


class MapColumn:
    """Reads integer maps (N, H, W), (N, H, W, 1) or (N, 1, H, W): entities as uint8, or bits with another ``dtype``."""

    def __init__(self, rows: Rows, name: str, pixels: tuple[int, int], view: CropResize, dtype: Any = np.uint8) -> None:
        self._rows, self._name, self._pixels, self._view = rows, name, pixels, view
        self.row_shape: tuple[int, ...] = view.kept(*pixels, name)
        self.dtype = np.dtype(dtype)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        maps = self._view.labels(self._rows.read(start, stop).reshape(stop - start, *self._pixels), self._name)
        if maps.dtype != self.dtype and (maps.min() < 0 or maps.max() > 255):
            raise SceneFileError(
                f"{self._name}, scenes {start} to {stop - 1}: labels from {maps.min()} to {maps.max()}, but entities "
                "are numbered 0 to 255, 0 being the background. Write the file anew"
            )
        out[:] = maps


class MaskColumn:
    """Joins stored masks (N, L, H, W), (N, L, H, W, 1) or (N, L, 1, H, W) to the label map of each scene."""

    def __init__(self, rows: Rows, name: str, pixels: tuple[int, int], view: CropResize) -> None:
        self._rows, self._name, self._view = rows, name, view
        self._shape = (rows.shape[1], *pixels)
        self.row_shape: tuple[int, ...] = view.kept(*pixels, name)
        self.dtype = np.dtype(np.uint8)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        masks = self._view.labels(self._rows.read(start, stop).reshape(stop - start, *self._shape), self._name)
        try:
            out[:] = label_maps(masks)
        except ValueError:
            for number in range(len(masks)):
                self._join_one(masks[number : number + 1], start + number)
            raise

    def _join_one(self, masks: NDArray[Any], number: int) -> None:
        """Names the first scene whose masks cannot be joined."""
        try:
            label_maps(masks)
        except ValueError as error:
            raise SceneFileError(
                f"{self._name}, scene {number}: {error}. Write the file again with MultiObjectWriter, and give "
                "membership: which entities each pixel belongs to"
            ) from error


def as_bytes(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns images as uint8; floats in [0, 1] are multiplied by 255 and rounded.

    Raises:
        ValueError: if floats are outside of [0, 1].
    """
    if images.dtype == np.uint8:
        return images
    values = np.multiply(images, 255, dtype=np.float32, casting="same_kind")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # also true for NaN
        raise ValueError(
            f"floats from {low / 255:g} to {high / 255:g}, but float images must lie in [0, 1]. Divide them by the "
            "value of white, or store them as uint8 from 0 to 255"
        )
    rounded: NDArray[np.uint8] = np.rint(values, out=values).astype(np.uint8)
    return rounded
