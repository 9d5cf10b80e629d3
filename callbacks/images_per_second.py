"""Logs the speed of training."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

__all__ = ["ImagesPerSecond"]


class ImagesPerSecond(pl.Callback):
    """Logs ``train/images_per_second`` of all processes together, without validation and saving.

    It is a mean over the ``log_every_n_steps`` of the Trainer. Images are counted by the length of ``batch["image"]``,
    or of the batch if that is a tensor.
    """

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._since: float | None = None
        self._logged_step = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._pause()

    def _pause(self) -> None:
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch["image"] if isinstance(batch, dict) else batch) * trainer.world_size
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or step == self._logged_step or step % every:
            return  # not one of Lightning's logging steps, or a further micro-batch after one
        self._logged_step = step
        self._pause()
        if self._seconds > 0.0:
            pl_module.log("train/images_per_second", self._images / self._seconds)
        self._images, self._seconds, self._since = 0, 0.0, time.monotonic()
