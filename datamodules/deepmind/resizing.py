"""Crops CLEVR images and resizes them as the released code does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CROP", "crop_and_resize", "legacy_bilinear", "legacy_nearest"]

CROP = (29, 64, 192)
"""First row, first column and side of the square that is kept of a CLEVR image of 240x320 pixels."""


def legacy_bilinear(image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Resizes images (..., S, S, C) to (..., size, size, C) as TensorFlow 1 did.

    Output pixel i is read at S/size * i, between two input pixels, with no half-pixel shift and no smoothing.
    """
    side = image.shape[-2]
    at = np.arange(size, dtype=np.float32) * np.float32(side / size)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, side - 1)
    weight = (at - low).astype(np.float32)[:, None]
    rows = image.astype(np.float32)
    rows = rows[..., low, :, :] + (rows[..., high, :, :] - rows[..., low, :, :]) * weight[:, None]
    return np.asarray(rows[..., low, :] + (rows[..., high, :] - rows[..., low, :]) * weight)


def legacy_nearest(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resizes masks (..., S, S) to (..., size, size): output pixel i is input pixel floor(S/size * i)."""
    at = np.floor(np.arange(size, dtype=np.float32) * np.float32(mask.shape[-1] / size)).astype(np.int64)
    return mask[..., at[:, None], at]


def crop_and_resize(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns CLEVR images (..., 240, 320, C) and masks (..., 240, 320) as they are given to the model.

    Image values are rounded to whole ones, so they are off by 1/510 at most from those of the released code.
    """
    top, left, side = CROP
    window = (slice(top, top + side), slice(left, left + side))
    resized = legacy_bilinear(image[(..., *window, slice(None))], size)
    return np.rint(resized).astype(np.uint8), legacy_nearest(mask[(..., *window)], size)
