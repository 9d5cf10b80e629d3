"""Draws tables of images and text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Column", "Pixels", "as_pixels", "draw_table", "enlargement", "outlined", "side_by_side"]

Pixels = NDArray[np.uint8]
"""(height, width, 3)."""

_SMALLEST_TILE = 96  # pixels; smaller images are enlarged by an integer factor, so that their pixels stay square
_GAP, _WIDE_GAP = 4, 14  # pixels between tiles, and between groups of them
_FRAME, _INK = "#9a9a9a", "#222222"
_SIZES = range(28, 9, -1)  # font sizes in pixels


class Column(NamedTuple):
    """Describes a column."""

    head: str = ""
    color: str | None = None
    """Color of the bar behind the head, ``#rrggbb``; None: no bar."""
    ink: str = _INK
    """Color of the head's text."""
    apart: bool = False
    """Whether a new group begins here."""


def enlargement(height: int, width: int) -> int:
    """Returns the integer factor by which small images are enlarged, 1 for large ones."""
    return max(1, -(-_SMALLEST_TILE // max(height, width)))


def as_pixels(image: NDArray[np.floating]) -> Pixels:
    """Makes a tile of an image ``(3, H, W)`` in [0, 1], enlarged if it is small."""
    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8).transpose(1, 2, 0)
    scale = enlargement(*pixels.shape[:2])
    tile: Pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return tile


def outlined(tile: Pixels, region: NDArray[np.bool_]) -> Pixels:
    """Outlines a region (H, W) of a tile in white within black, which is visible on every color."""
    scale = tile.shape[0] // region.shape[0]
    inside = region.repeat(scale, axis=0).repeat(scale, axis=1)
    drawn = tile.copy()
    around = inside
    for color in (255, 255, 0, 0):
        larger = _grown(around)
        drawn[larger & ~around] = color
        around = larger
    return drawn


def _grown(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    sideways = grown.copy()
    grown[:, 1:] |= sideways[:, :-1]
    grown[:, :-1] |= sideways[:, 1:]
    return grown


def draw_table(columns: Sequence[Column], rows: Sequence[Sequence[Pixels | str | None]], title: str = "") -> Pixels:
    """Draws a table with heads. A cell is a tile in a thin frame, text, or None for an empty cell.

    The font grows with the tiles as long as the heads fit.

    Args:
        columns: of all rows.
        rows: one cell per column; all tiles have the same size.
        title: drawn above the table.
    """
    height, width = next(cell for row in rows for cell in row if isinstance(cell, np.ndarray)).shape[:2]
    tiles = [any(isinstance(row[i], np.ndarray) for row in rows) for i in range(len(columns))]
    longest = [column.head for column, tile in zip(columns, tiles, strict=True) if tile]
    wanted = max(13, round(width / 6.4))
    font = next(
        (each for each in map(_font, _SIZES) if each.size <= wanted and _widest(each, longest) <= width - 4),
        _font(_SIZES[-1]),
    )
    line = round(font.size * 1.5)
    widths = [width + 2] * len(columns)
    for i, column in enumerate(columns):
        words = [cell for cell in (row[i] for row in rows) if isinstance(cell, str)]
        if not tiles[i]:
            widths[i] = _GAP + _widest(font, [column.head, *words])
    lefts, right = [], 0
    for column, size in zip(columns, widths, strict=True):
        lefts.append(right + (_WIDE_GAP if column.apart else _GAP))
        right = lefts[-1] + size
    top = (line + _GAP if title else 0) + _GAP
    first = top + (line + 2 if any(column.head for column in columns) else 0)
    right = max(right, 2 * _GAP + _widest(font, [title]))
    canvas = Image.new("RGB", (right + _GAP, first + len(rows) * (height + 2 + _GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((_GAP, _GAP + line / 2), title, _INK, font, anchor="lm")
    for column, left, size in zip(columns, lefts, widths, strict=True):
        if column.color is not None:
            draw.rectangle((left, top, left + size - 1, top + line - 2), column.color)
        draw.text((left + size / 2, top + line / 2 - 1), column.head, column.ink, font, anchor="mm")
    for y, row in zip(range(first, canvas.height, height + 2 + _GAP), rows, strict=True):
        for left, size, cell in zip(lefts, widths, row, strict=True):
            if isinstance(cell, str):
                draw.text((left + size / 2, y + height / 2), cell, _INK, font, anchor="mm")
            elif cell is not None:
                draw.rectangle((left, y, left + width + 1, y + height + 1), outline=_FRAME)
                canvas.paste(Image.fromarray(cell), (left + 1, y + 1))
    return np.asarray(canvas)


def side_by_side(pictures: Sequence[Pixels]) -> Pixels:
    """Joins pictures from left to right, on white."""
    height = max(picture.shape[0] for picture in pictures)
    filled = [
        np.pad(picture, ((0, height - len(picture)), (0, _WIDE_GAP), (0, 0)), constant_values=255)
        for picture in pictures
    ]
    return np.concatenate(filled, axis=1)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)  # Pillow's own font, the same on every machine
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _widest(font: ImageFont.FreeTypeFont, texts: Sequence[str]) -> int:
    return max((round(font.getlength(text)) for text in texts), default=0)
