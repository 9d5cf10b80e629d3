"""Tetrominoes: three pieces on black, 35x35 pixels (Kabra et al. 2019, multi_object_datasets)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from iodine_pl.datamodules.base import SceneDataModule
from iodine_pl.datamodules.hdf5 import SceneWriter
from iodine_pl.datamodules.synthetic import tetrominoes
from iodine_pl.datamodules.tfrecord import Feature

__all__ = ["TetrominoesDataModule"]


class TetrominoesDataModule(SceneDataModule):
    """Streams Tetrominoes: DeepMind's ``tetrominoes_train.tfrecords``, or scenes generated with the same look.

    The factors are those of the real files: ``x`` (top row) and ``y`` (left column) in pixels, ``shape`` 1 to 19,
    ``color`` RGB in {0, 1}, ``visibility``. The splits are the published ones: 60,000 for training, the next 320 for
    validation, 320 for test.

    Args:
        path: a file, or None to generate one; see :class:`SceneDataModule`, also for the other arguments.
        size: side of generated images in pixels.
        objects: pieces in a generated scene.
    """

    dataset_name = "tetrominoes"
    features = {  # noqa: RUF012 - a constant
        "image": Feature((35, 35, 3), np.uint8),
        "mask": Feature((4, 35, 35, 1), np.uint8),
        "x": Feature((4,)),
        "y": Feature((4,)),
        "shape": Feature((4,)),
        "color": Feature((4, 3)),
        "visibility": Feature((4,)),
    }

    def __init__(self, path: str | Path | None = None, size: int = 35, objects: int = 3, **arguments: Any) -> None:
        super().__init__(path, **arguments)
        self.size = size
        self.objects = objects

    @property
    def generated_name(self) -> str:
        return f"{self.dataset_name}_{self.size}px_{self.objects}objects_{self.total}_seed{self.seed}.h5"

    def generate(self, file: Path) -> None:
        with (
            SceneWriter(file, dataset=self.dataset_name, source=f"generated, seed {self.seed}") as writer,
            tqdm(total=self.total, desc="generating", unit=" scenes") as progress,
        ):
            for image, label, num_objects, factors in tetrominoes.generate(
                self.total, self.seed, self.size, self.objects
            ):
                writer.append(image, label, num_objects, factors)
                progress.update(len(image))
