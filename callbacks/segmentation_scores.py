"""Logs how well slots cover the true objects in validation and test."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iodine_pl.callbacks.label_scores import LabelScores
from iodine_pl.evaluation.matching import MeanOverlap

__all__ = ["SegmentationScores"]


class SegmentationScores(LabelScores):
    """Logs ``val/miou`` and ``val/mbo``, likewise ``test/…``: the scores that tables have beside the ARI.

    ``miou`` is the mean over the objects of their intersection over union with slots that are matched one to one;
    ``mbo``, the mean best overlap, takes for each object the slot that is best for it. Both give each pixel to the slot
    with the largest mask, leave out the true background, and leave out images without objects.
    :func:`iodine_pl.evaluation.matching.mean_iou` says whose definition this is. What batches and module must have: see
    :class:`iodine_pl.callbacks.label_scores.LabelScores`.
    """

    scores = "mIoU or mBO"

    def __init__(self) -> None:
        self._overlap = MeanOverlap()
        super().__init__({"overlap": self._overlap})

    def add(self, label: Tensor, result: Any) -> None:
        self._overlap.update(label, result.masks)

    def means(self) -> dict[str, Tensor]:
        return {name: value.float() for name, value in self._overlap.compute().items()}
