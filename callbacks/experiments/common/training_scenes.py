"""Measures training scenes, for probes that are fitted on these and reported on test scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray

from iodine_pl.callbacks.experiments.common.experiment import Experiment
from iodine_pl.callbacks.experiments.common.rows import Columns, as_array
from iodine_pl.files.progress import progress_bar

__all__ = ["train_rows"]


def train_rows(experiment: Experiment, trainer: pl.Trainer, module: pl.LightningModule, scenes: int) -> Columns:
    """Measures this process's part of the first ``scenes`` training scenes of an epoch.

    Raises:
        MisconfigurationException: if the Trainer has no datamodule with training scenes.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is None:
        raise MisconfigurationException(
            f"{type(experiment).__name__} fits on training scenes: give trainer.test a datamodule, "
            "not test batches alone"
        )
    rows: dict[str, list[NDArray[Any]]] = {}
    still = -(-scenes // trainer.world_size)
    title = f"{experiment.name}: training scenes"
    bar = progress_bar(total=still, desc=title, disable=not trainer.is_global_zero, leave=False)
    for i, batch in enumerate(data.train_dataloader()):
        placed = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        for name, values in experiment.measure(module, placed, i).items():
            rows.setdefault(name, []).append(as_array(values[:still]))
        bar.update(min(still, len(batch["image"])))
        still -= len(batch["image"])
        if still <= 0:
            break
    bar.close()
    return {name: np.concatenate(parts) for name, parts in rows.items()}
