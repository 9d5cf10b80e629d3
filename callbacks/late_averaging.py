"""Averages the weights of the later part of training."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging

__all__ = ["LateAveraging"]


class LateAveraging(EMAWeightAveraging):
    """Averages the weights from a given update on; until then the current weights are validated and saved.

    Lightning's own callback validates and saves the initial weights as the average until the averaging begins.

    Args:
        update_starting_at_step: the first update, counted from 0, after which weights are averaged.
        decay: of the exponential mean; 0.999 averages about the last thousand updates.
        averaging: further arguments of :class:`pytorch_lightning.callbacks.EMAWeightAveraging`.
    """

    def __init__(self, update_starting_at_step: int, decay: float = 0.999, **averaging: Any) -> None:
        super().__init__(update_starting_at_step=update_starting_at_step, decay=decay, **averaging)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def _follow(self, pl_module: pl.LightningModule) -> None:
        average = self._average_model
        if average is not None and not average.n_averaged:
            average.module.load_state_dict(pl_module.state_dict())
