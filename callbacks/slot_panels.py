"""Draws what every slot shows."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from iodine_pl.callbacks.contract import require_fields
from iodine_pl.evaluation.panels import refinement_panel, slot_panel

__all__ = ["SlotPanels"]


class SlotPanels(pl.Callback):
    """Draws the first images of each validation, test and prediction: per-slot masked reconstructions, and one image
    over the steps.

    PNG files go to ``panels/`` in the run's folder, so they are there without a logger; TensorBoard gets them too.
    Those of a test and of predictions begin with ``test_`` and ``predict_``. The module's ``forward`` must be annotated
    to return something with ``reconstruction``, ``masks`` and ``means``; the picture over the refinement steps needs a
    ``forward`` that takes ``return_steps``, as IODINE's does. Only the first process draws; the random state is left as
    it was.

    Args:
        num_images: rows of the picture.
        every_n_validations: draws in each n-th only.
    """

    def __init__(self, num_images: int = 8, every_n_validations: int = 1) -> None:
        if num_images < 1 or every_n_validations < 1:
            raise ValueError(f"need at least 1 image and every 1 validation, got {num_images}, {every_n_validations}")
        self.num_images = num_images
        self.every_n_validations = every_n_validations
        self.latest: Path | None = None
        self._validations = 0
        self._collected: list[torch.Tensor] | None = None  # None: nothing is to be drawn

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_fields(self, pl_module, "reconstruction", "masks", "means")
        folder = trainer.log_dir  # all processes must ask, as the first tells the others
        self._folder = Path(folder or trainer.default_root_dir) / "panels"

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._collected = [] if self._validations % self.every_n_validations == 0 else None
            self._validations += 1

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._collected = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._collected is None or dataloader_idx or not trainer.is_global_zero:
            return
        missing = self.num_images - sum(len(images) for images in self._collected)
        if missing > 0:
            self._collected.append((batch["image"] if isinstance(batch, dict) else batch)[:missing])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stage = "test_" if trainer.testing else "predict_" if trainer.predicting else ""
        images, self._collected = self._collected, None
        if images:
            self._draw(trainer, pl_module, torch.cat(images), stage)

    on_predict_epoch_start = on_test_epoch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, images: torch.Tensor, stage: str) -> None:
        takes_steps = "return_steps" in inspect.signature(pl_module.forward).parameters
        on_gpu = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(on_gpu), torch.no_grad():
            torch.manual_seed(0)  # the same noise in every picture
            result = pl_module(images, return_steps=True) if takes_steps else pl_module(images)
        self.latest = self._write(trainer, f"{stage}slots", slot_panel(images, result))
        if takes_steps:
            self._write(trainer, f"{stage}refinement", refinement_panel(images, result.steps))

    def _write(self, trainer: pl.Trainer, name: str, picture: NDArray[np.uint8]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}_{trainer.global_step:07d}.png"
        Image.fromarray(picture).save(path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")
        return path
