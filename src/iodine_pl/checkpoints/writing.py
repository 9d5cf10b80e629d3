"""Writes checkpoints that are whole or not there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from iodine_pl.files.atomic import written_beside
from iodine_pl.scene_model import SceneModel

__all__ = ["AtomicCheckpointIO", "write_checkpoint"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill at any moment leaves the old or the new one.

    Lightning's own way goes through the system's folder for temporary files, which may be on another disk: the last
    step is then a copy, which can be cut off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with written_beside(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)


def write_checkpoint(
    model: SceneModel, path: str | Path, step: int = 0, moments: Mapping[str, tuple[Tensor, Tensor]] | None = None
) -> None:
    """Writes what a Trainer would have saved after so many updates, at the beginning of an epoch.

    Args:
        model: with its weights and hyperparameters.
        path: the file.
        step: updates done: of the Trainer, the schedule of the learning rate and, where it has moments, Adam.
        moments: parameter -> Adam's two moments, for all parameters or none, each of the parameter's shape.
    """
    logging.disable(logging.INFO)  # no word of the devices and the learning rate of a Trainer that trains nothing
    try:
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
        )
        model.trainer = trainer
        trainer.strategy.connect(model)
        trainer.strategy.setup_optimizers(trainer)
        epoch = trainer.fit_loop.epoch_loop
        epoch._batches_that_stepped = step
        epoch.scheduler_progress.total.ready = epoch.scheduler_progress.total.completed = step
        of_steps = epoch.automatic_optimization.optim_progress.optimizer.step
        of_steps.total.ready = of_steps.total.completed = step
        (optimizer,) = trainer.optimizers
        parameters = dict(model.named_parameters())
        for name, (first, second) in (moments or {}).items():
            optimizer.state[parameters[name]] = {
                "step": torch.tensor(float(step)),
                "exp_avg": first.to(parameters[name]).clone(),
                "exp_avg_sq": second.to(parameters[name]).clone(),
            }
        for schedule in trainer.lr_scheduler_configs:
            schedule.scheduler.last_epoch = step
        trainer.save_checkpoint(path, weights_only=False)
    finally:
        logging.disable(logging.NOTSET)
        model.trainer = None
