"""Datasets: what is in a file and how it reaches the device."""

from iodine_pl.datamodules.base import SceneDataModule
from iodine_pl.datamodules.clevr import ClevrDataModule
from iodine_pl.datamodules.dataset import SceneDataset
from iodine_pl.datamodules.files import SceneFileError
from iodine_pl.datamodules.moving_sprites import MovingSpritesDataModule
from iodine_pl.datamodules.multi_dsprites import MultiDSpritesDataModule
from iodine_pl.datamodules.tetrominoes import TetrominoesDataModule
from iodine_pl.datamodules.writer import MultiObjectWriter
from iodine_pl.tf_files.tfrecord import Feature, TFRecordError

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
