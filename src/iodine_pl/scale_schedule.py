"""The pixel scale in the course of training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["ScaleSchedule"]


class ScaleSchedule:
    """Gives the pixel scale after so many updates: straight lines between those given, constant before and after.

    Args:
        scales: updates done -> scale.

    Raises:
        ValueError: if it is empty, or has a negative number of updates or a scale that is not positive.
    """

    def __init__(self, scales: Mapping[int, float]) -> None:
        scales = {int(updates): scale for updates, scale in scales.items()}  # a checkpoint of the command line has text
        if not scales or min(scales) < 0 or not all(scale > 0.0 for scale in scales.values()):
            raise ValueError(
                f"pixel_scale must be positive, or scales by the updates done, like {{0: 0.3, 1000: 0.5}}; got {scales}"
            )
        self.updates, self.scales = zip(*sorted(scales.items()), strict=True)

    def __call__(self, updates: int) -> float:
        return float(np.interp(updates, self.updates, self.scales))

    @property
    def last(self) -> float:
        """Scale of the model at the end of training."""
        return float(self.scales[-1])
