"""Pictures of a decomposition: tensors in, figure arrays out."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iodine_pl.result import Decomposition

__all__ = [
    "COLUMNS",
    "mask_image",
    "refinement_panel",
    "slot_images",
    "slot_palette",
    "slot_panel",
    "slot_tiles",
    "tile_grid",
]

COLUMNS = "input, reconstruction, masks with a color per slot, then every slot on white"
"""What stands in the columns of :func:`slot_panel` and :func:`refinement_panel`, in words."""

_GAP = 2  # white pixels between tiles
_SMALLEST_TILE = 96  # pixels; smaller images are enlarged by a whole factor, so that their pixels stay square


def slot_palette(num_slots: int) -> Tensor:
    """Returns one color for each slot, ``(K, 3)`` in [0, 1]: hues as far apart as can be."""
    colors = [colorsys.hsv_to_rgb(k / num_slots, 0.85, 0.95 if k % 2 else 0.75) for k in range(num_slots)]
    return torch.tensor(colors)


def mask_image(masks: Tensor) -> Tensor:
    """Mixes the slots' colors by ``masks`` (..., K, H, W); returns ``(..., 3, H, W)`` in [0, 1]."""
    return torch.einsum("...khw,kc->...chw", masks, slot_palette(masks.shape[-3]).to(masks))


def slot_images(result: Decomposition) -> Tensor:
    """Puts each slot's mean on white where its mask is low, ``mean * mask + (1 - mask)``: ``(B, K, C, H, W)``."""
    masks = result.masks.unsqueeze(2)
    return result.means * masks + (1.0 - masks)


def slot_panel(images: Tensor, result: Decomposition) -> NDArray[np.uint8]:
    """Draws one row per image: input, reconstruction, mask with a color per slot, then every slot on white.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], or sequences ``(B, T+1, C, H, W)``, whose last frame is shown.
        result: their decomposition.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    return tile_grid(slot_tiles(images if images.ndim == 4 else images[:, -1], result))


def refinement_panel(images: Tensor, steps: Sequence[Decomposition], image: int = 0) -> NDArray[np.uint8]:
    """Draws one image over the refinement steps: a row per step, the initial state on top, columns as
    :func:`slot_panel`.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], or sequences ``(B, T+1, C, H, W)``, with a frame for each step.
        steps: the decompositions at every step.
        image: which of the batch.
    """
    one = slice(image, image + 1)
    frames = [images[one]] * len(steps) if images.ndim == 4 else images[one].unbind(dim=1)
    rows = zip(frames, steps, strict=True)
    return tile_grid([row for frame, step in rows for row in slot_tiles(frame, step.select(one))])


def slot_tiles(images: Tensor, result: Decomposition) -> list[list[Tensor]]:
    """Returns the tiles of :func:`slot_panel`, K + 3 for each image: float32 ``(3, H, W)`` in [0, 1] on the CPU.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        result: their decomposition.
    """

    def rgb(x: Tensor) -> Tensor:
        return x.detach().float().cpu().clamp(0, 1).expand(*x.shape[:-3], 3, *x.shape[-2:])

    columns = [rgb(images), rgb(result.reconstruction), rgb(mask_image(result.masks))]
    columns += rgb(slot_images(result)).unbind(dim=1)
    return [list(row) for row in zip(*columns, strict=True)]


def tile_grid(rows: list[list[Tensor]]) -> NDArray[np.uint8]:
    """Sets tiles (3, H, W) in [0, 1] in rows, small ones enlarged: ``(height, width, 3)`` uint8."""
    height, width = rows[0][0].shape[-2:]
    scale = max(1, -(-_SMALLEST_TILE // max(height, width)))
    height, width = height * scale, width * scale
    canvas = np.full((len(rows) * (height + _GAP) + _GAP, len(rows[0]) * (width + _GAP) + _GAP, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            pixels = (tile.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            top, left = _GAP + i * (height + _GAP), _GAP + j * (width + _GAP)
            canvas[top : top + height, left : left + width] = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return canvas
