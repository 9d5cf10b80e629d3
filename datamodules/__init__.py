"""Datasets: what is in a file and how it reaches the device."""

from iodine_pl.datamodules.base import SceneDataModule
from iodine_pl.datamodules.hdf5 import SceneDataset, SceneFileError, SceneWriter
from iodine_pl.datamodules.tetrominoes import TetrominoesDataModule
from iodine_pl.datamodules.tfrecord import Feature, TFRecordError

__all__ = [
    "Feature",
    "SceneDataModule",
    "SceneDataset",
    "SceneFileError",
    "SceneWriter",
    "TFRecordError",
    "TetrominoesDataModule",
]
