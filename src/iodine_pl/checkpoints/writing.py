"""Writes checkpoints atomically, and lets a Trainer read them with the checks of this package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from iodine_pl.checkpoints.reading import CheckpointError, read_file
from iodine_pl.files.atomic import written_beside
from iodine_pl.scene_model import SceneModel

__all__ = ["AtomicCheckpointIO", "write_checkpoint"]

_OF_SPAWNED = ".temp.ckpt"
"""Lightning's name for the weights alone, which a spawned or forked training leaves for the process that started it."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill at any moment leaves the old or the new one.

    Lightning writes to the system's temporary folder first. If that is on another disk, the last step is a copy, which
    can be cut off. Reading compares checksums and makes no objects that may run code, see
    :func:`iodine_pl.checkpoints.reading.read_file`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with written_beside(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # the disk's own error, which PyTorch hides
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        if weights_only is False:
            raise CheckpointError(f"{path} is read without running code that it names: leave out weights_only=False")
        content = read_file(path, mapped=False, map_location=map_location)
        if Path(path).name == _OF_SPAWNED:
            return content
        missing = [name for name in ("state_dict", "pytorch-lightning_version") if name not in content]
        if missing:
            raise CheckpointError(f"{path} is not a checkpoint of a Trainer: it has no {' and no '.join(missing)}")
        return content


def write_checkpoint(
    model: SceneModel, path: str | Path, step: int = 0, moments: Mapping[str, tuple[Tensor, Tensor]] | None = None
) -> None:
    """Writes what a Trainer would have saved after ``step`` updates, at the beginning of an epoch.

    Args:
        model: with its weights and hyperparameters.
        path: the file.
        step: number of updates for the Trainer, the learning-rate schedule and, with ``moments``, Adam.
        moments: parameter -> Adam's two moments in the parameter's shape, for all parameters or none.
    """
    logging.disable(logging.INFO)  # no messages about devices and learning rate, as nothing is trained
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
