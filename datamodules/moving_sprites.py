"""Moving sprites: sequences for models that see one frame per step."""

from __future__ import annotations

from typing import Any

import numpy as np

from iodine_pl.datamodules.base import SceneDataModule
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.synthetic.moving_sprites import MovingSprites

__all__ = ["MovingSpritesDataModule"]


class MovingSpritesDataModule(SceneDataModule):
    """Generates sequences of moving sprites on the fly; nothing is written to disk.

    A batch has ``image`` (B, S, 3, 64, 64) and ``label`` (B, S, 64, 64), S frames each. A model with T refinement steps
    sees T + 1 frames: the last is for the state after the last step.

    Args:
        frames: S.
        min_sprites, max_sprites: number of sprites in a sequence.
        num_train, num_val, num_test: numbers of sequences, in this order.
        arguments: of :class:`SceneDataModule`, except ``path``, since there are no files.

    Raises:
        SceneFileError: if ``path`` or a choice of scenes is given.
    """

    dataset_name = "moving_sprites"
    published_train = 60_000

    def __init__(
        self, frames: int = 8, min_sprites: int = 1, max_sprites: int = 3, batch_size: int = 16, **arguments: Any
    ) -> None:
        super().__init__(batch_size=batch_size, **arguments)
        if self.path is not None or any(self.selection[:3]):
            raise SceneFileError("MovingSpritesDataModule makes its sequences: leave out path, min_objects, exclude")
        self.frames = frames
        self.min_sprites, self.max_sprites = min_sprites, max_sprites

    def prepare_data(self) -> None:
        """Does nothing, since there are no files."""

    def setup(self, stage: str) -> None:
        """Makes the splits."""
        sizes = {"train": self.num_train or 0, "val": self.num_val, "test": self.num_test}
        ends = np.cumsum(list(sizes.values()))
        self.dataset: Any = MovingSprites(
            int(ends[-1]), self.frames, self.generated_seed, self.min_sprites, self.max_sprites
        )
        self.splits = dict(zip(sizes, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
