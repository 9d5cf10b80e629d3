"""CLEVR: rendered solids on a table, with masks (Johnson et al. 2017; Kabra et al. 2019, multi_object_datasets)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from iodine_pl.datamodules.base import SceneDataModule
from iodine_pl.datamodules.deepmind.releases import CLEVR
from iodine_pl.datamodules.deepmind.resizing import TENSORFLOW_1
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator

__all__ = ["ClevrDataModule"]


class ClevrDataModule(SceneDataModule):
    """Streams CLEVR: DeepMind's ``clevr_with_masks_train.tfrecords``, cropped and resized as in the experiments, or
    scenes from a ray tracer with the same camera, lights and sampling rules.

    The factors are those of the real files: ``x``, ``y``, ``z`` in the world, ``rotation`` in degrees,
    ``pixel_coords`` (column, row, depth; of the image before it is cropped), ``visibility``, and the codes ``color``,
    ``material``, ``shape``, ``size``, whose names ``exclude`` takes. The splits are the published ones: the first
    70,000 records for training, counted before scenes are chosen by their number of objects, then 320 for validation
    and 320 for test. ``max_objects=6`` gives the paper's CLEVR6, ``min_objects=7`` CLEVR10.

    Args:
        path: a file, or None to generate; see :class:`SceneDataModule`, also for the other arguments.
        size: side in pixels of generated images and of those converted from DeepMind's file.
        batch_size: images per device; 4 as in the released code.
    """

    dataset_name = "clevr"
    published_train = 70_000
    spare = 8
    release = CLEVR
    filter = TENSORFLOW_1
    factor_kinds: ClassVar = {
        "pixel_coords": "scalar",
        "color": "category",
        "shape": "category",
        "size": "category",
        "material": "category",
    }

    def __init__(self, path: str | Path | None = None, size: int = 128, batch_size: int = 4, **arguments: Any) -> None:
        super().__init__(path, batch_size=batch_size, **arguments)
        self.size = size
        self.generator = ClevrGenerator(self.generated_seed, size)
