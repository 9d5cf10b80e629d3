"""Packs pictures into a page, with many tiles in one file of limited size."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from iodine_pl.evaluation.drawing import Pixels

__all__ = ["atlas", "packed"]

_EXACT = 1_500_000  # pixels; larger pictures take long to compress without loss
_QUALITIES = (92, 80, 65, 50, 35, 20)


def atlas(tiles: Tensor) -> Pixels:
    """Joins tiles (rows, columns, 3, H, W) in [0, 1] without gaps: ``(rows * H, columns * W, 3)``."""
    rows, columns, channels, height, width = tiles.shape
    pixels = (tiles.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 3, 1, 4, 2)
    joined: Pixels = pixels.reshape(rows * height, columns * width, channels).numpy()
    return joined


def packed(picture: Pixels | bytes, budget: int) -> str:
    """Returns a data URL of a picture.

    The picture is lossless if it takes no more than ``budget`` bytes, else it has the highest quality that fits.

    Args:
        picture: pixels, or the content of a picture file.
        budget: in bytes. If no quality fits, the lowest is taken.
    """
    image: Image.Image
    if isinstance(picture, bytes):
        image = Image.open(io.BytesIO(picture))
    else:
        image = Image.fromarray(np.ascontiguousarray(picture))
    content = b""
    for quality in (*([None] if image.width * image.height <= _EXACT else []), *_QUALITIES):
        data = io.BytesIO()
        if quality is None:
            image.save(data, "webp", lossless=True, quality=40, method=2)  # effort, not loss
        else:
            image.convert("RGB").save(data, "webp", quality=quality)
        content = data.getvalue()
        if len(content) <= budget:
            break
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
