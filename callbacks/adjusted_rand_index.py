"""Logs the adjusted Rand index of validation and test."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iodine_pl import MeanAdjustedRandIndex
from iodine_pl.callbacks.label_scores import LabelScores

__all__ = ["AdjustedRandIndex"]

_ASSIGNS = {"ari_fg": "masks", "ari": "masks", "ari_fg_responsibilities": "responsibilities"}
"""Score -> the field of a decomposition that assigns pixels to slots."""


class AdjustedRandIndex(LabelScores):
    """Logs ``val/ari_fg`` (foreground pixels only, the paper's) and ``val/ari`` (all pixels), likewise ``test/…``.

    Both assign each pixel to the slot with the largest mask. ``val/ari_fg_responsibilities`` assigns it to the slot
    that explains it best, if the module returns responsibilities. The difference is due to slots that share pixels.

    Images without foreground are left out of ``ari_fg`` and counted in ``val/ari_fg_skipped``. For what batches and
    module must have, see :class:`iodine_pl.callbacks.label_scores.LabelScores`.
    """

    scores = "adjusted Rand index"
    in_bar = ("ari_fg",)

    def __init__(self) -> None:
        self._indices = {name: MeanAdjustedRandIndex(foreground=name != "ari") for name in _ASSIGNS}
        super().__init__(self._indices)

    def add(self, label: Tensor, result: Any) -> None:
        for name, metric in self._indices.items():
            slots = getattr(result, _ASSIGNS[name], None)
            if slots is None:  # no image is counted, and the mean is NaN
                metric.update(label[:0], result.masks[:0])
            else:
                metric.update(label, slots)

    def means(self) -> dict[str, Tensor | float]:
        found: dict[str, Tensor | float] = {}
        for name, metric in self._indices.items():
            value = metric.compute().float()
            if _ASSIGNS[name] == "masks" or not value.isnan():  # NaN if the module has no responsibilities
                found[name] = value
        return found | {"ari_fg_skipped": float(self._indices["ari_fg"].images_skipped)}
