"""Crops and resizes CLEVR images as the released code does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.resizing import Filter

__all__ = ["CROP", "TENSORFLOW_1", "crop_and_resize", "legacy_at", "legacy_bilinear"]

CROP = (29, 64, 192, 192)
"""First row, first column, height and width of the crop of a CLEVR image of 240x320 pixels."""


Size = tuple[int, int]


def legacy_bilinear(image: NDArray[np.uint8], size: Size) -> NDArray[np.float32]:
    """Resizes images (..., H, W, C) to (..., *size, C) as TensorFlow 1 did.

    Output pixel i of a side of S pixels is interpolated at S/size * i, without a half-pixel shift and without
    smoothing.
    """
    return _between(_between(image, -3, size[0]), -2, size[1])


def _between(image: NDArray[Any], axis: int, size: int) -> NDArray[np.float32]:
    side = image.shape[axis]
    at = np.arange(size, dtype=np.float32) * np.float32(side / size)
    low = np.floor(at).astype(np.int64)
    weight = (at - low).astype(np.float32).reshape(-1, *[1] * (-1 - axis))
    first = image.take(low, axis).astype(np.float32)
    return np.asarray(first + (image.take(np.minimum(low + 1, side - 1), axis) - first) * weight)


def legacy_at(side: int, size: int) -> NDArray[np.int64]:
    """Returns floor(S/size * i), the pixel of a side of S pixels that TensorFlow 1 took for output pixel i."""
    return np.asarray(np.floor(np.arange(size, dtype=np.float32) * np.float32(side / size)), np.int64)


def _rounded(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    return np.rint(legacy_bilinear(image, size)).astype(np.uint8)


TENSORFLOW_1 = Filter(_rounded, legacy_at)
"""Image values are rounded to integers, so they differ by at most 1/510 from those of the released code."""


def crop_and_resize(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns CLEVR images (..., 240, 320, C) and masks (..., 240, 320) cropped and resized for the model."""
    top, left, height, width = CROP
    rows, columns = slice(top, top + height), slice(left, left + width)
    at = legacy_at(height, size)
    return _rounded(image[..., rows, columns, :], (size, size)), mask[..., rows, columns][..., at[:, None], at]
