"""Reads pictures of any size, and crops and resizes squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["PictureError", "cut_square", "opaque", "picture_of", "read_picture"]

_DEEP = ("I", "F")  # modes of 16 bits and more begin with one of them


class PictureError(ValueError):
    """Says which picture is wrong, how, and what to do."""


def read_picture(path: str | Path) -> Image.Image:
    """Reads a picture as a viewer shows it: rotated as the camera recorded, transparent parts on white.

    Returns:
        A picture of mode ``L`` (gray) or ``RGB``, 8 bits per channel.

    Raises:
        PictureError: if there is no such file, it is damaged, of another kind, or has more than 8 bits per channel.
    """
    path = Path(path)
    if path.is_dir():
        raise PictureError(f"{path} is a folder: give its pictures, such as {path / '*.png'}")
    if not path.is_file():
        raise PictureError(f"there is no picture {path}")
    try:
        with Image.open(path) as image:
            # A PNG or TIFF file of three channels with 16 bits opens as RGB; only its raw mode shows the 16 bits.
            if image.mode.startswith(_DEEP) or any(";16" in str(tile[3]) for tile in image.tile):
                raise PictureError(f"{path} has more than 8 bits per channel: convert it to 8 bits first")
            return opaque(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise PictureError(f"{path} is no picture that can be read: give a PNG, JPEG, BMP or WebP file") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # PNG's reader raises SyntaxError
        raise PictureError(f"{path} cannot be read as a picture ({error}): replace it") from error


def opaque(image: Image.Image) -> Image.Image:
    """Returns a picture in mode ``L`` or ``RGB``, transparent parts on white.

    Raises:
        PictureError: if it has more than 8 bits per channel.
    """
    if image.mode.startswith(_DEEP):
        raise PictureError(
            f"a picture of mode {image.mode} has more than 8 bits per channel: convert it to 8 bits first"
        )
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def picture_of(values: NDArray[np.generic], name: str = "an image") -> Image.Image:
    """Makes a picture of mode ``L`` or ``RGB`` from an array.

    Args:
        values: (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0, 1].
        name: of the array in an error.

    Raises:
        PictureError: if shape, type or range differ.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if (values.ndim != 2 and (values.ndim != 3 or values.shape[2] != 3)) or 0 in values.shape:
        raise PictureError(f"{name} has the shape {values.shape}, expected was (H, W), (H, W, 1) or (H, W, 3)")
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # also true for NaN
            raise PictureError(f"{name} has values from {values.min():g} to {values.max():g}: scale them to [0, 1]")
        values = np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise PictureError(f"{name} is {values.dtype}: give uint8, or float in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(values))


def cut_square(
    picture: Image.Image, size: int | None, crop: tuple[int, int, int] | None = None, name: str = "the picture"
) -> Image.Image:
    """Cuts a square out of a picture and resizes it.

    Args:
        picture: of mode ``L`` or ``RGB``.
        size: side of the result in pixels; None: that of the square.
        crop: first row, first column and side of the square in pixels; None: the largest square in the middle.
        name: of the picture in an error.

    Raises:
        PictureError: if the square is not inside the picture, or ``size`` is less than 1.
    """
    width, height = picture.size
    side = min(width, height)
    top, left, side = crop or ((height - side) // 2, (width - side) // 2, side)
    if min(top, left) < 0 or side < 1 or top + side > height or left + side > width:
        raise PictureError(f"{name} has {height} rows and {width} columns: the crop {[top, left, side]} is not in it")
    size = side if size is None else size
    if size < 1:
        raise PictureError(f"the size must be at least 1 pixel, got {size}")
    square = picture.crop((left, top, left + side, top + side))
    # When a picture shrinks, this filter averages all pixels that fall on one.
    return square if size == side else square.resize((size, size), Image.Resampling.BILINEAR)
