"""Crops and resizes images; labels by the nearest pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iodine_pl.datamodules.hdf5.errors import SceneFileError

__all__ = ["ANTIALIASED", "CropResize", "Filter"]

Size = tuple[int, int]
"""(height, width)."""


class Filter(NamedTuple):
    """Describes how pixels are resized."""

    image: Callable[[NDArray[np.uint8], Size], NDArray[np.uint8]]
    """Resizes one image (H, W, C)."""
    at: Callable[[int, int], NDArray[np.int64]]
    """Returns the nearest input pixel of each output pixel, given a side's length before and after resizing."""


def _antialiased(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resizes by Pillow's bilinear filter, which averages the pixels that fall on one when it shrinks."""
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))
    return np.atleast_3d(np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR)))


def _nearest_middle(side: int, size: int) -> NDArray[np.int64]:
    return np.asarray(np.floor((np.arange(size) + 0.5) * (side / size)), np.int64)


ANTIALIASED = Filter(_antialiased, _nearest_middle)


class CropResize:
    """Crops images, then resizes them.

    Args:
        crop: ``center``, the largest part in the middle that has the shape of ``resize`` (a square, if that is one
            number or None); or (top, left, height, width) in pixels; None: the whole image.
        resize: (height, width) in pixels; or one number, the shorter side, the other in proportion; None: no resizing.
        filter: how pixels are resized.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        crop: Literal["center"] | tuple[int, int, int, int] | None = None,
        resize: int | Size | None = None,
        filter: Filter = ANTIALIASED,
    ) -> None:
        self.crop = crop if crop is None or isinstance(crop, str) else (crop[0], crop[1], crop[2], crop[3])
        self.resize = resize if resize is None or isinstance(resize, int) else (resize[0], resize[1])
        self.filter = filter
        if isinstance(self.crop, tuple) and (min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1):
            raise ValueError(f"crop must be center or TOP, LEFT, HEIGHT, WIDTH in pixels, got {list(self.crop)}")
        if min(np.atleast_1d(1 if self.resize is None else self.resize)) < 1:
            raise ValueError(f"resize must be at least 1 pixel, got {resize}")

    def __bool__(self) -> bool:
        """Tells whether images are changed at all."""
        return self.crop is not None or self.resize is not None

    def box(self, height: int, width: int, name: str) -> tuple[int, int, int, int]:
        """Returns (top, left, height, width) of the crop of an image.

        Raises:
            SceneFileError: if the crop is not inside the image; it names the image.
        """
        if self.crop is None:
            return 0, 0, height, width
        if self.crop == "center":
            ratio = self.resize[0] / self.resize[1] if isinstance(self.resize, tuple) else 1.0
            kept = max(1, min(height, round(width * ratio))), max(1, min(width, round(height / ratio)))
            return (height - kept[0]) // 2, (width - kept[1]) // 2, *kept
        top, left, rows, columns = self.crop
        if top + rows > height or left + columns > width:
            raise SceneFileError(
                f"{name} has {height} rows and {width} columns: the crop {list(self.crop)} (top, left, height, width) "
                "is not in it"
            )
        return top, left, rows, columns

    def size(self, height: int, width: int) -> Size:
        """Returns (height, width) to which a crop of this size is resized."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        shorter = min(height, width)
        return max(1, round(height * self.resize / shorter)), max(1, round(width * self.resize / shorter))

    def kept(self, height: int, width: int, name: str) -> Size:
        """Returns (height, width) of the result for an image of this size.

        Raises:
            SceneFileError: as :meth:`box`.
        """
        return self.size(*self.box(height, width, name)[2:])

    def image(self, image: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """Crops and resizes an image (H, W, C) to (h, w, C)."""
        top, left, height, width = self.box(image.shape[0], image.shape[1], name)
        part = image[top : top + height, left : left + width]
        size = self.size(height, width)
        return part if size == (height, width) else self.filter.image(part, size)

    def labels(self, maps: NDArray[Any], name: str) -> NDArray[Any]:
        """Crops maps (..., H, W) and resizes them by the nearest pixel to (..., h, w)."""
        top, left, height, width = self.box(maps.shape[-2], maps.shape[-1], name)
        size = self.size(height, width)
        part = maps[..., top : top + height, left : left + width]
        if size == (height, width):
            return part
        return part[..., self.filter.at(height, size[0])[:, None], self.filter.at(width, size[1])]
