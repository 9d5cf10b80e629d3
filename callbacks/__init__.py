"""Callbacks that monitor and save a run. Only LateAveraging changes the training."""

from iodine_pl.callbacks.adjusted_rand_index import AdjustedRandIndex
from iodine_pl.callbacks.best_checkpoint import BestCheckpoint
from iodine_pl.callbacks.images_per_second import ImagesPerSecond
from iodine_pl.callbacks.last_checkpoint import LastCheckpoint
from iodine_pl.callbacks.late_averaging import LateAveraging
from iodine_pl.callbacks.prediction_writer import PredictionWriter
from iodine_pl.callbacks.segmentation_scores import SegmentationScores
from iodine_pl.callbacks.slot_panels import SlotPanels
from iodine_pl.callbacks.slot_use import SlotUse

__all__ = [
    "AdjustedRandIndex",
    "BestCheckpoint",
    "ImagesPerSecond",
    "LastCheckpoint",
    "LateAveraging",
    "PredictionWriter",
    "SegmentationScores",
    "SlotPanels",
    "SlotUse",
]
