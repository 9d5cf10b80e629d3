"""Tetrominoes: three pieces on black, 35x35 pixels (Kabra et al. 2019, multi_object_datasets)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from iodine_pl.datamodules.base import SceneDataModule
from iodine_pl.datamodules.deepmind.releases import TETROMINOES
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator

__all__ = ["TetrominoesDataModule"]


class TetrominoesDataModule(SceneDataModule):
    """Streams Tetrominoes: DeepMind's ``tetrominoes_train.tfrecords``, or scenes generated with the same look.

    The factors are those of the real files: ``x`` (top row) and ``y`` (left column) in pixels, ``shape`` 1 to 19,
    ``color`` RGB in {0, 1}, ``visibility``. The splits are the published ones: 60,000 for training, the next 320 for
    validation, 320 for test.

    Args:
        path: a file, or None to generate; see :class:`SceneDataModule`, also for the other arguments.
        size: side of generated images in pixels.
        objects: number of pieces in a generated scene.
        ambiguous: the pieces have one color and touch, so that the scene can be segmented in several ways.
    """

    dataset_name = "tetrominoes"
    published_train = 60_000
    release = TETROMINOES
    factor_kinds: ClassVar = {"x": "scalar", "y": "scalar", "color": "scalar", "shape": "category"}

    def __init__(
        self,
        path: str | Path | None = None,
        size: int = 35,
        objects: int = 3,
        ambiguous: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(path, **arguments)
        self.generator = TetrominoesGenerator(self.generated_seed, size, objects, ambiguous)
