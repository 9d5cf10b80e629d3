"""Sequences of the sprites of Multi-dSprites, each with a velocity, which reverses at the borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from iodine_pl.datamodules.synthetic.multi_dsprites import SCALES, SHAPES, compose, rgb

__all__ = ["MovingSprites"]

_FASTEST = 0.12  # per frame, as a fraction of the way of a sprite's center from border to border
_TURN = 0.3  # radians per frame, at most


class MovingSprites(Dataset[dict[str, Any]]):
    """Generates sequences on the fly; each is a function of the seed and its position.

    The sprites are those of Multi-dSprites, with uniform hue, saturation and value, on black. They move straight and
    rotate evenly; later sprites are in front. Nothing is stored: a sequence of 8 frames takes a millisecond or two.

    Args:
        count: number of sequences.
        frames: number of frames in each.
        seed: of all sequences.
        min_sprites, max_sprites: number of sprites in a sequence.

    Raises:
        ValueError: if a number is out of its range.
    """

    window = 1  # each sequence is its own block

    def __init__(self, count: int, frames: int, seed: int = 0, min_sprites: int = 1, max_sprites: int = 3) -> None:
        if count < 1 or frames < 1 or not 1 <= min_sprites <= max_sprites:
            raise ValueError(
                f"need count and frames of at least 1 and 1 <= min_sprites <= max_sprites, got {count}, {frames}, "
                f"{min_sprites} and {max_sprites}"
            )
        self.count, self.frames, self.seed = count, frames, seed
        self.min_sprites, self.max_sprites = min_sprites, max_sprites
        self.files = ["moving sprites"]
        self.image_shape = (64, 64, 3)

    def __len__(self) -> int:
        return self.count

    def block_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the block of each sequence: itself."""
        return indices

    def __getitem__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Returns a batch of arrays: ``image`` (B, S, 64, 64, 3) and ``label`` (B, S, 64, 64) uint8, ``index``,
        ``num_objects`` and ``factors``: ``x``, ``y`` (B, S, L), and constant ones (B, L, ...); entity 0 is the
        background."""
        made = [self._sequence(int(index)) for index in indices]
        image, label, counts, factors = zip(*made, strict=True)
        return {
            "image": np.stack(image),
            "label": np.stack(label),
            "index": np.asarray(indices, dtype=np.int64),
            "num_objects": np.array(counts, dtype=np.int64),
            "factors": {name: np.stack([each[name] for each in factors]) for name in factors[0]},
        }

    def _sequence(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int, dict[str, NDArray[Any]]]:
        rng = np.random.default_rng([self.seed, index])
        sprites = int(rng.integers(self.min_sprites, self.max_sprites + 1))
        entities = self.max_sprites + 1
        there = (np.arange(entities) >= 1) & (np.arange(entities) <= sprites)
        time = np.arange(self.frames)[:, None]

        def places() -> NDArray[np.float64]:
            start, velocity = rng.random(entities), rng.uniform(-_FASTEST, _FASTEST, entities)
            # A straight path, reflected at 0 and 1.
            return 1.0 - np.abs((start + velocity * time) % 2.0 - 1.0)

        drawn = {
            "x": places(),
            "y": places(),
            "shape": np.tile(rng.integers(1, len(SHAPES), entities), (self.frames, 1)),
            "orientation": rng.uniform(0, 2 * np.pi, entities) + rng.uniform(-_TURN, _TURN, entities) * time,
            "scale": np.tile(rng.choice(SCALES, entities), (self.frames, 1)),
        }
        label = compose(np.tile(there, (self.frames, 1)), drawn)
        color = rgb(np.stack([rng.random(entities), rng.random(entities), rng.uniform(0.4, 1.0, entities)], axis=-1))
        painted = np.rint(255.0 * color * there[:, None]).astype(np.uint8)
        factors = {name: (drawn[name] * there).astype(np.float32) for name in ("x", "y")}
        factors |= {name: (drawn[name][0] * there).astype(np.float32) for name in ("shape", "scale")}
        factors |= {"color": (painted / 255.0).astype(np.float32)}
        return painted[label], label, sprites, factors
