"""Datasets, from files or generators to batches on the device."""

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
