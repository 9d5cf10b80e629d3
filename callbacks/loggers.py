"""Passes pictures and tables to those loggers of a Trainer that take them.

A logger is recognized by its methods, so no package is imported: TensorBoard's has ``experiment.add_image``, that of
Weights & Biases ``log_image``, and MLflow's a ``run_id`` and a client that writes images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

__all__ = ["log_image", "log_table"]


def log_image(trainer: pl.Trainer, name: str, image: NDArray[np.uint8]) -> None:
    """Logs an image ``(H, W, 3)``; call it only in the first process."""
    step = trainer.global_step
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[image], step=step)
        elif hasattr(experiment, "add_image"):
            experiment.add_image(name, image, step, dataformats="HWC")
        elif hasattr(experiment, "log_image") and hasattr(logger, "run_id"):
            experiment.log_image(logger.run_id, image, f"{name}_{step:07d}.png")


def log_table(trainer: pl.Trainer, name: str, rows: Sequence[Mapping[str, Any]], text: str) -> None:
    """Logs a table, as a table or as Markdown text; call it only in the first process."""
    step = trainer.global_step
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_table"):
            columns = {column: _of_one_kind([row[column] for row in rows]) for column in rows[0]}
            data = [list(line) for line in zip(*columns.values(), strict=True)]
            logger.log_table(key=name, columns=list(columns), data=data, step=step)
        elif hasattr(experiment, "add_text"):
            experiment.add_text(name, text, step)
        elif hasattr(experiment, "log_text") and hasattr(logger, "run_id"):
            experiment.log_text(logger.run_id, text, f"{name}_{step:07d}.md")


def _of_one_kind(values: list[Any]) -> list[Any]:
    """Returns numbers unchanged; if not all values are numbers, returns strings, since a column has one type."""
    return values if all(isinstance(value, int | float) for value in values) else [str(value) for value in values]
