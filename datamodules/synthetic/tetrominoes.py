"""Generates Tetrominoes scenes like those of DeepMind's dataset: same pieces, same beveled cells, same colors.

The look is measured on real records. That shapes, colors and positions are uniform is inferred from a few of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.synthetic.generator import Generator, Scenes

__all__ = ["COLORS", "SHAPES", "TetrominoesGenerator"]

SHAPES: tuple[str, ...] = (
    "####",
    "#/#/#/#",
    "###/#..",
    "#../###",
    "..#/###",
    "###/..#",
    "##/.#/.#",
    ".#/.#/##",
    "##/#./#.",
    "#./#./##",
    "##./.##",
    ".##/##.",
    ".#/##/#.",
    "#./##/.#",
    ".#./###",
    "###/.#.",
    ".#/##/.#",
    "#./##/#.",
    "##/##",
)
"""Rows of each piece; its number in the files is its position here plus 1. Pieces 1, 4 and 8 are inferred, not seen."""

COLORS: NDArray[np.uint8] = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=np.uint8)

_CELL = np.array(  # brightness of the 5x5 pixels of a cell, the same in every cell of the real records
    [
        [191, 255, 255, 255, 223],
        [127, 159, 159, 159, 191],
        [127, 159, 159, 159, 191],
        [127, 159, 159, 159, 191],
        [95, 63, 63, 63, 127],
    ],
    dtype=np.uint8,
)
_SIDE = len(_CELL)
_PIXELS = 4 * _SIDE * _SIDE
_TRIES = 100  # positions tried for a piece before its scene starts again


def _pieces() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the (row, column) of the 100 pixels of each piece, (19, 100, 2), and its bounding boxes, (19, 2)."""
    pixels, boxes = [], []
    inside = np.stack(np.meshgrid(np.arange(_SIDE), np.arange(_SIDE), indexing="ij"), axis=-1).reshape(-1, 2)
    for shape in SHAPES:
        rows = shape.split("/")
        cells = np.array([(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark == "#"])
        pixels.append((cells[:, None] * _SIDE + inside).reshape(-1, 2))
        boxes.append((len(rows) * _SIDE, len(rows[0]) * _SIDE))
    return np.array(pixels), np.array(boxes)


_PIECES, _BOXES = _pieces()
_BRIGHTNESS = np.tile(_CELL.reshape(-1), 4)


_BLOCK = 256
"""Scenes made at a time from one seed."""


class TetrominoesGenerator(Generator):
    """Makes scenes of pieces on black; a scene is a function of the seed and its position.

    The factors are those of the real files, each (n, objects + 1, ...) float32 with zeros for the background: ``x`` the
    top row and ``y`` the left column of the piece's box in pixels, ``shape`` 1 to 19, ``color`` RGB in {0, 1},
    ``visibility`` (1, also for the background). Pieces are inside the image and never overlap.

    Args:
        seed: of all scenes.
        size: side of the square image in pixels, at least 20.
        objects: number of pieces in a scene, 1 to 3 at the standard size.
        ambiguous: the pieces of a scene have one color and touch along whole cells, so that it can be segmented in
            several ways.

    Raises:
        ValueError: if the pieces do not fit freely.
    """

    shard = 40 * _BLOCK
    parallel = False

    def __init__(self, seed: int = 0, size: int = 35, objects: int = 3, ambiguous: bool = False) -> None:
        if size < _BOXES.max() or objects < 1 or objects * _PIXELS > size * size // 2:
            raise ValueError(f"{objects} pieces of 100 pixels do not fit freely into {size}x{size} pixels")
        self.seed, self.size, self.objects, self.ambiguous = seed, size, objects, ambiguous
        self.name = f"tetrominoes_{size}px_{objects}objects{'_ambiguous' * ambiguous}_seed{seed}"

    def scenes(self, start: int, stop: int) -> Iterator[Scenes]:
        """Yields ``(image, label, factors)`` for the scenes ``start``, a multiple of 256, to ``stop``."""
        for first in range(start, stop, _BLOCK):
            rng = np.random.default_rng([self.seed, first // _BLOCK])
            image, label, factors = _scenes(rng, _BLOCK, self.size, self.objects, self.ambiguous)
            n = min(_BLOCK, stop - first)
            yield image[:n], label[:n], {name: values[:n] for name, values in factors.items()}


def _scenes(rng: np.random.Generator, n: int, size: int, objects: int, ambiguous: bool) -> Scenes:
    shape = np.zeros((n, objects), dtype=np.int64)
    color = COLORS[rng.integers(len(COLORS), size=(n, objects))]
    corner = np.zeros((n, objects, 2), dtype=np.int64)
    label: NDArray[np.uint8] = np.zeros((n, size * size), dtype=np.uint8)
    image: NDArray[np.uint8] = np.zeros((n, size * size, 3), dtype=np.uint8)
    waiting = np.arange(n)  # scenes without all their pieces
    while len(waiting):
        label[waiting] = 0
        shape[waiting] = rng.integers(
            len(SHAPES), size=(len(waiting), objects)
        )  # new shapes, since some pieces never fit together
        placed = np.ones(len(waiting), dtype=bool)
        for k in range(objects):
            place = _place_touching if ambiguous and k else _place
            placed[placed] = place(rng, waiting[placed], k, shape[:, k], corner, label, size)
        waiting = waiting[~placed]
    if ambiguous:
        color[:] = color[:, :1]
    every = np.arange(n)[:, None]
    for k in range(objects):
        image[every, _flat_pixels(shape[:, k], corner[:, k], size)] = _BRIGHTNESS[None, :, None] * color[:, k, None]

    def with_background(values: NDArray[Any], background: float = 0.0) -> NDArray[np.float32]:
        padded = np.full((n, objects + 1, *values.shape[2:]), background, dtype=np.float32)
        padded[:, 1:] = values
        return padded

    factors = {
        "x": with_background(corner[..., 0]),
        "y": with_background(corner[..., 1]),
        "shape": with_background(shape + 1),
        "color": with_background(color),
        "visibility": with_background(np.ones((n, objects)), background=1.0),
    }
    return image.reshape(n, size, size, 3), label.reshape(n, size, size), factors


def _place(
    rng: np.random.Generator,
    scenes: NDArray[np.int64],
    k: int,
    shape: NDArray[np.int64],
    corner: NDArray[np.int64],
    label: NDArray[np.uint8],
    size: int,
) -> NDArray[np.bool_]:
    """Puts piece ``k`` of the given scenes at a free position; returns for which scenes one was found."""
    todo = np.arange(len(scenes))
    for _ in range(_TRIES):
        at = scenes[todo]
        corner[at, k] = rng.integers(size - _BOXES[shape[at]] + 1)
        pixels = _flat_pixels(shape[at], corner[at, k], size)
        free = ~label[at[:, None], pixels].any(axis=1)
        label[at[free, None], pixels[free]] = k + 1
        todo = todo[~free]
        if not len(todo):
            break
    found = np.ones(len(scenes), dtype=bool)
    found[todo] = False
    return found


def _place_touching(
    rng: np.random.Generator,
    scenes: NDArray[np.int64],
    k: int,
    shape: NDArray[np.int64],
    corner: NDArray[np.int64],
    label: NDArray[np.uint8],
    size: int,
) -> NDArray[np.bool_]:
    """Does the same as :func:`_place`, at a position where the piece touches another one along whole cells."""
    found = np.zeros(len(scenes), dtype=bool)
    for i, scene in enumerate(scenes):
        box = _BOXES[shape[scene]]
        lattice = corner[scene, 0] % _SIDE  # the grid of the first piece's cells
        rows, columns = (np.arange(start, size - side + 1, _SIDE) for start, side in zip(lattice, box, strict=True))
        corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        taken = np.pad(label[scene].reshape(size, size) > 0, _SIDE)
        beside = np.zeros_like(taken)
        for shift, axis in ((_SIDE, 0), (-_SIDE, 0), (_SIDE, 1), (-_SIDE, 1)):
            beside |= np.roll(taken, shift, axis)
        here = _PIECES[shape[scene]] + corners[:, None] + _SIDE  # (places, pixels, 2)
        fits = ~taken[here[..., 0], here[..., 1]].any(axis=1) & beside[here[..., 0], here[..., 1]].any(axis=1)
        if fits.any():
            corner[scene, k] = rng.choice(corners[fits])
            label[scene, _flat_pixels(shape[[scene]], corner[[scene], k], size)[0]] = k + 1
            found[i] = True
    return found


def _flat_pixels(shape: NDArray[np.int64], corner: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    pixels = _PIECES[shape] + corner[:, None]
    return pixels[..., 0] * size + pixels[..., 1]
