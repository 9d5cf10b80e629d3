"""Logs mIoU and mBO in validation and test."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iodine_pl.callbacks.label_scores import LabelScores
from iodine_pl.evaluation.matching import MeanOverlap

__all__ = ["SegmentationScores"]


class SegmentationScores(LabelScores):
    """Logs ``val/miou`` and ``val/mbo``, likewise ``test/…``, which papers report in addition to the ARI.

    ``miou`` is the mean intersection over union of objects and slots that are matched one to one. ``mbo``, the mean
    best overlap, takes the best slot for each object. Both assign each pixel to the slot with the largest mask, and
    leave out the true background and images without objects. :func:`iodine_pl.evaluation.matching.mean_iou` has the
    source of the definition. For what batches and module must have, see
    :class:`iodine_pl.callbacks.label_scores.LabelScores`.
    """

    scores = "mIoU, mBO"

    def __init__(self) -> None:
        self._overlap = MeanOverlap()
        super().__init__({"overlap": self._overlap})

    def add(self, label: Tensor, result: Any) -> None:
        self._overlap.update(label, result.masks)

    def means(self) -> dict[str, Tensor]:
        return {name: value.float() for name, value in self._overlap.compute().items()}
