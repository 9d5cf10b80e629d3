"""The scores of a run on test images, each with its interval."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iodine_pl.evaluation.scores import SCORES, step_scores
from iodine_pl.report.run import Run

__all__ = ["Scores", "scores_of", "with_interval"]

_AT_ONCE = 16  # images
_NORMAL = 1.96  # standard errors on either side hold 95%


class Scores(NamedTuple):
    """Holds means over test images."""

    images: int
    table: dict[str, tuple[float, float]]
    """Score -> mean, and half the width of its 95% interval."""


def scores_of(run: Run, data: Any, most: int) -> Scores:
    """Returns the scores of this checkpoint from the experiment ``segmentation``, else computes them from some images.

    Args:
        run: whose checkpoint is scored.
        data: its datamodule, after ``setup``.
        most: number of test images to decompose.
    """
    return _tested(run) or _measured(run, data, most)


def with_interval(mean: float, half: float) -> tuple[str, str]:
    """Formats a mean and half its interval, to two digits of the latter or four decimals.

    Example:
        >>> with_interval(0.96812, 0.0187), with_interval(2189.1, 271.4)
        (('0.968', '0.019'), ('2189', '271'))
    """
    digits = min(4, max(0, 1 - math.floor(math.log10(half)))) if half > 0.0 else 3
    return f"{mean:.{digits}f}", f"{half:.{digits}f}"


def _tested(run: Run) -> Scores | None:
    """Reads the scores of the experiment, unless they belong to another checkpoint."""
    file = run.folder / "experiments" / "segmentation.json" if run.folder is not None else Path("-")
    if not file.is_file() or file.stat().st_mtime < run.checkpoint.stat().st_mtime:
        return None
    content = json.loads(file.read_text())
    rows = content.get("table", [])
    of_this = Path(str(content.get("checkpoint"))).name == run.checkpoint.name
    if not of_this or not all("standard error" in row for row in rows):
        return None
    table = {row["score"]: (row["mean"], _NORMAL * row["standard error"]) for row in rows}
    return Scores(content["images"], table)


def _measured(run: Run, data: Any, most: int) -> Scores:
    indices = data.splits["test"][:most]
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(indices), _AT_ONCE):
        batch = data.scenes(indices[start : start + _AT_ONCE])
        with torch.no_grad():
            result = run.model.decompose(batch)
        for name, values in step_scores(result, batch.get("label")).items():
            parts.setdefault(name, []).append(values[:, -1])
    table = {}
    for name, each in parts.items():
        values = torch.cat(each)
        counted = values[~values.isnan()].numpy()
        if len(counted):
            table[SCORES[name]] = (float(counted.mean()), float(_NORMAL * counted.std() / np.sqrt(len(counted))))
    return Scores(len(indices), table)
