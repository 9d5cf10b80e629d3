"""Keeps the best checkpoint, also of data without labels."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.callbacks import ModelCheckpoint

from iodine_pl.callbacks.run_folder import RunFolder

__all__ = ["BestCheckpoint"]


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``, by a metric that some data do not have.

    Args:
        monitor: the metric.
        fallback: the one that is taken if validation did not log ``monitor``.
        filename: without its ending.
        mode: ``max``: the highest is best, of both metrics; ``min``: the lowest.
        arguments: further ones of Lightning's ModelCheckpoint.
    """

    def __init__(
        self,
        monitor: str = "val/ari_fg",
        fallback: str = "val/elbo",
        filename: str = "best",
        mode: str = "max",
        **arguments: Any,
    ) -> None:
        # Saved after validation, which has the metric; always under one name.
        super().__init__(
            monitor=monitor,
            filename=filename,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
            **arguments,
        )
        self.fallback = fallback

    @property
    def state_key(self) -> str:
        """Names the state in a checkpoint, whichever metric it came to be of."""
        return type(self).__qualname__

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = RunFolder.of(trainer)
        if folder is not None and self.dirpath is None:
            self.dirpath = str(folder.agreed(trainer) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        known = trainer.callback_metrics
        if not trainer.sanity_checking and self.monitor not in known and self.fallback in known:
            rank_zero_info(
                f"{self.monitor} is not known of these data: the best checkpoint is chosen by {self.fallback}."
            )
            self.monitor = self.fallback
        super().on_validation_end(trainer, pl_module)
