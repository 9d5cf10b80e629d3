"""Generates Multi-dSprites scenes: the outlines of dSprites, in the three variants of DeepMind's dataset.

The outlines are fitted to frames of dSprites itself. The numbers of sprites and the distributions of colors follow the
dataset's description. Two things are assumed: a sprite shows at least 20 pixels, and the order of the shapes' codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.synthetic.generator import Generator, Scenes

__all__ = ["SHAPES", "MultiDSpritesGenerator", "Variant", "sprite"]
Variant = Literal["binarized", "colored_on_grayscale", "colored_on_colored"]

SHAPES = ("", "square", "ellipse", "heart")
"""Names of the shapes' codes; 0 is the background."""

SCALES = np.linspace(0.5, 1.0, 6)
ORIENTATIONS = np.linspace(0.0, 2.0 * np.pi, 40)
POSITIONS = np.linspace(0.0, 1.0, 32)

_SIDE = 64
_HALF_SIDE = 9.6  # of the square, in pixels at scale 1
_SEMI_AXES = (12.75, 7.25)  # of the ellipse, across and down
_RIGHT_HALF = (  # radii of the heart at scale 1, every 3.75 degrees from its notch, above, to its tip, below
    *(5.10, 6.30, 7.30, 8.18, 8.90, 9.52, 10.00, 10.42, 10.70, 11.00, 11.12, 11.20, 11.32),
    *(11.25, 11.32, 10.92, 10.90, 10.65, 10.35, 10.08, 9.70, 9.28, 8.95, 8.50, 8.10, 7.78),
    *(7.42, 7.15, 6.88, 6.68, 6.45, 6.32, 6.12, 6.05, 6.00, 5.92, 6.00, 5.92, 5.92),
    *(5.98, 6.15, 6.18, 6.35, 6.55, 6.85, 7.20, 7.70, 8.30, 9.55),
)
_HEART = np.array([*_RIGHT_HALF, *_RIGHT_HALF[-2:0:-1]], dtype=np.float32)  # once around, clockwise from the notch
_PATCH = 31  # pixels: the largest sprite, a turned square, is 27.2 across
_SEEN = 20  # minimum of visible pixels of a sprite
_BLOCK = 256  # scenes made at a time from one seed


class _Rules(NamedTuple):
    fewest: int
    most: int
    channels: int


_RULES: dict[Variant, _Rules] = {
    "binarized": _Rules(2, 3, 1),
    "colored_on_grayscale": _Rules(2, 5, 3),
    "colored_on_colored": _Rules(1, 4, 3),
}


def sprite(
    shape: NDArray[np.int64],
    scale: NDArray[np.float64],
    orientation: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Draws n sprites and returns ``(mask, corner)``: a patch (n, 31, 31), and its first row and column (n, 2).

    All arguments are (n,): ``shape`` 1 to 3, ``scale`` 0.5 to 1, ``orientation`` in radians, counter-clockwise, ``x``
    (across) and ``y`` (down) in [0, 1]. A pixel is inside if its center is.
    """
    center = np.stack([16.0 + 32.0 * y, 16.0 + 32.0 * x], axis=1)
    corner = np.floor(center).astype(np.int64) - _PATCH // 2
    grid = np.arange(_PATCH)
    down = (corner[:, :1] + grid + 0.5 - center[:, :1]).astype(np.float32)[:, :, None]
    right = (corner[:, 1:] + grid + 0.5 - center[:, 1:]).astype(np.float32)[:, None, :]
    cosine, sine = (f(orientation).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    a = (right * cosine - down * sine) / scale.astype(np.float32)[:, None, None]
    b = (right * sine + down * cosine) / scale.astype(np.float32)[:, None, None]
    mask = np.empty(a.shape, dtype=bool)
    square, ellipse, heart = (shape == code for code in (1, 2, 3))
    mask[square] = np.maximum(np.abs(a[square]), np.abs(b[square])) <= _HALF_SIDE
    mask[ellipse] = (a[ellipse] / _SEMI_AXES[0]) ** 2 + (b[ellipse] / _SEMI_AXES[1]) ** 2 <= 1.0
    mask[heart] = _inside_heart(a[heart], b[heart])
    return mask, corner


def _inside_heart(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    turn = (np.arctan2(b, a) / np.float32(2.0 * np.pi) + np.float32(0.25)) % np.float32(1.0)
    at = turn * np.float32(len(_HEART))
    low = at.astype(np.int32) % len(_HEART)
    radius = _HEART[low]
    radius += (at % 1.0) * (np.roll(_HEART, -1)[low] - radius)
    inside: NDArray[np.bool_] = a * a + b * b <= radius * radius
    return inside


class MultiDSpritesGenerator(Generator):
    """Makes scenes of sprites, with later ones in front; a scene is a function of the seed and its position.

    Factors, each (n, L, ...) float32 with zeros for the background and the entities that do not exist: ``x``, ``y`` in
    [0, 1], ``shape`` 1 to 3, ``orientation`` in radians, ``scale`` 0.5 to 1, ``color`` in [0, 1] (also for the
    background), ``visibility``. L is 6, 5 and 4 as in the real files.

    Args:
        seed: of all scenes.
        variant: ``colored_on_grayscale``: 2 to 5 sprites with uniform hue, saturation and value, on uniform gray;
            ``colored_on_colored``: 1 to 4, with uniform RGB on uniform RGB; ``binarized``: 2 or 3, white on black, one
            channel.

    Raises:
        ValueError: if there is no such variant.
    """

    shard = 40 * _BLOCK
    names: Mapping[str, tuple[str, ...]] = {"shape": SHAPES}
    parallel = True

    def __init__(self, seed: int = 0, variant: Variant = "colored_on_grayscale") -> None:
        if variant not in _RULES:
            raise ValueError(f"variant must be one of {', '.join(_RULES)}, got {variant}")
        self.seed, self.variant = seed, variant
        self.name = f"multi_dsprites_{variant}_seed{seed}"

    def scenes(self, start: int, stop: int) -> Iterator[Scenes]:
        """Yields ``(image, label, factors)`` for the scenes ``start``, a multiple of 256, to ``stop``."""
        for first in range(start, stop, _BLOCK):
            image, label, factors = self._block(np.random.default_rng([self.seed, first // _BLOCK]))
            n = min(_BLOCK, stop - first)
            yield image[:n], label[:n], {name: values[:n] for name, values in factors.items()}

    def _block(self, rng: np.random.Generator) -> Scenes:
        rules = _RULES[self.variant]
        entities, n = rules.most + 1, _BLOCK
        factors = {name: np.zeros((n, entities)) for name in ("x", "y", "shape", "orientation", "scale", "visibility")}
        label = np.zeros((n, _SIDE, _SIDE), dtype=np.uint8)
        exists = np.arange(entities) <= rng.integers(rules.fewest, rules.most + 1, size=n)[:, None]
        todo = np.arange(n)
        while len(todo):  # a scene with a hidden sprite is sampled again, with the same number of sprites
            size = (len(todo), entities)
            drawn = {
                "x": rng.choice(POSITIONS, size),
                "y": rng.choice(POSITIONS, size),
                "shape": rng.integers(1, len(SHAPES), size),
                "orientation": rng.choice(ORIENTATIONS, size),
                "scale": rng.choice(SCALES, size),
            }
            there = exists[todo]
            there[:, 0] = False
            for name, values in drawn.items():
                factors[name][todo] = values * there
            label[todo] = compose(there, drawn)
            pixels = np.stack([(label[todo] == k).sum(axis=(1, 2)) for k in range(entities)], axis=1)
            todo = todo[((pixels < _SEEN) & there).any(axis=1)]
        factors["visibility"] = exists.astype(np.float64)
        color = np.rint(255.0 * self._colors(rng, n, entities)) * exists[..., None]
        image = color.astype(np.uint8)[np.arange(n)[:, None, None], label]
        factors["color"] = color / 255.0
        return image, label, {name: values.astype(np.float32) for name, values in factors.items()}

    def _colors(self, rng: np.random.Generator, n: int, entities: int) -> NDArray[np.float64]:
        """Returns the colors (n, L, C), that of the background first."""
        if self.variant == "binarized":
            return np.broadcast_to(np.arange(entities)[:, None] > 0, (n, entities, 1)).astype(np.float64)
        color = rng.random((n, entities, 3))
        if self.variant == "colored_on_grayscale":
            color = rgb(color)
            color[:, 0] = rng.random((n, 1))
        return color


def compose(there: NDArray[np.bool_], factors: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Overlays the sprites of some scenes and returns the label maps (n, 64, 64)."""
    label = np.zeros((len(there), _SIDE, _SIDE), dtype=np.uint8)
    scene, entity = np.nonzero(there)  # by scene, then by entity
    mask, corner = sprite(*(factors[name][scene, entity] for name in ("shape", "scale", "orientation", "x", "y")))
    grid = np.arange(_PATCH)
    rows, columns = corner[:, :1] + grid, corner[:, 1:] + grid
    for k in range(1, there.shape[1]):
        these = np.flatnonzero(entity == k)
        where = (scene[these, None, None], rows[these, :, None], columns[these, None, :])
        label[where] = np.where(mask[these], k, label[where])
    return label


def rgb(hsv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Converts hue, saturation and value in [0, 1] to RGB."""
    hue, saturation, value = (hsv[..., i, None] for i in range(3))
    sector = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue) % 6.0
    rgb: NDArray[np.float64] = value - value * saturation * np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    return rgb
