"""Datasets, from files or generators to batches on the device."""

from typing import TYPE_CHECKING

from iodine_pl.importing import when_used

if TYPE_CHECKING:
    from iodine_pl.datamodules.base import SceneDataModule
    from iodine_pl.datamodules.clevr import ClevrDataModule
    from iodine_pl.datamodules.hdf5.dataset import SceneDataset
    from iodine_pl.datamodules.hdf5.errors import SceneFileError
    from iodine_pl.datamodules.hdf5.writer import MultiObjectWriter
    from iodine_pl.datamodules.moving_sprites import MovingSpritesDataModule
    from iodine_pl.datamodules.multi_dsprites import MultiDSpritesDataModule
    from iodine_pl.datamodules.tetrominoes import TetrominoesDataModule
    from iodine_pl.files.tensorflow.tfrecord import Feature, TFRecordError

__all__ = [
    "ClevrDataModule",
    "Feature",
    "MovingSpritesDataModule",
    "MultiDSpritesDataModule",
    "MultiObjectWriter",
    "SceneDataModule",
    "SceneDataset",
    "SceneFileError",
    "TFRecordError",
    "TetrominoesDataModule",
]

__getattr__, __dir__ = when_used(
    __name__,
    {
        "ClevrDataModule": "iodine_pl.datamodules.clevr",
        "Feature": "iodine_pl.files.tensorflow.tfrecord",
        "MovingSpritesDataModule": "iodine_pl.datamodules.moving_sprites",
        "MultiDSpritesDataModule": "iodine_pl.datamodules.multi_dsprites",
        "MultiObjectWriter": "iodine_pl.datamodules.hdf5.writer",
        "SceneDataModule": "iodine_pl.datamodules.base",
        "SceneDataset": "iodine_pl.datamodules.hdf5.dataset",
        "SceneFileError": "iodine_pl.datamodules.hdf5.errors",
        "TFRecordError": "iodine_pl.files.tensorflow.tfrecord",
        "TetrominoesDataModule": "iodine_pl.datamodules.tetrominoes",
    },
)
