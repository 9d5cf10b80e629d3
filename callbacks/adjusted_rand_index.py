"""Logs the adjusted Rand index of validation and test."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_warn

from iodine_pl import MeanAdjustedRandIndex
from iodine_pl.callbacks.contract import decomposition_of, require_fields
from iodine_pl.evaluation.metrics import to_device

__all__ = ["AdjustedRandIndex"]

_ASSIGNS = {"ari_fg": "masks", "ari": "masks", "ari_fg_responsibilities": "responsibilities"}
"""What of a decomposition gives each pixel to a slot."""


class AdjustedRandIndex(pl.Callback):
    """Logs ``val/ari_fg`` (foreground pixels only, the paper's) and ``val/ari`` (all pixels), likewise ``test/…``.

    Both give each pixel to the slot with the largest mask. ``val/ari_fg_responsibilities`` gives it to the slot that
    explains it best, where the module says so: the difference is what is lost by slots that share pixels.

    The mean over all images, each counted once, so the same on any number of processes. Images without foreground are
    left out of ``ari_fg`` and counted in ``val/ari_fg_skipped``. It needs batches that are dicts with ``label`` (B, H,
    W), or (B, T+1, H, W) of sequences, whose last frame counts; and a module whose ``forward`` is annotated to return
    something with ``masks`` (B, K, H, W); what ``validation_step`` returns is used if it has them, else ``forward`` is
    called.
    """

    def __init__(self) -> None:
        self._metrics = {name: MeanAdjustedRandIndex(foreground=name != "ari") for name in _ASSIGNS}
        self._said_no_labels = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_fields(self, pl_module, "masks")

    def _update(self, pl_module: pl.LightningModule, outputs: Any, batch: Any) -> None:
        if not isinstance(batch, dict) or "label" not in batch:
            if not self._said_no_labels:
                rank_zero_warn("The batches have no label: no adjusted Rand index is logged.")
                self._said_no_labels = True
            return
        label = batch["label"] if batch["label"].ndim == 3 else batch["label"][:, -1]
        result = decomposition_of(pl_module, batch, outputs)
        for name, metric in self._metrics.items():
            slots = getattr(result, _ASSIGNS[name], None)
            if slots is None:  # no image is counted, and the mean is NaN
                metric.update(label[:0], result.masks[:0])
            else:
                metric.update(label, slots)

    def _log(self, pl_module: pl.LightningModule, stage: str) -> None:
        if self._said_no_labels:
            return
        for name, metric in self._metrics.items():
            value = metric.compute().float()
            if _ASSIGNS[name] == "masks" or not value.isnan():  # of a module without responsibilities it is
                # Already the same on all processes; Lightning wants to hear it.
                pl_module.log(f"{stage}/{name}", value, prog_bar=name == "ari_fg", sync_dist=True)
        pl_module.log(f"{stage}/ari_fg_skipped", float(self._metrics["ari_fg"].images_skipped), sync_dist=True)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for metric in self._metrics.values():
            metric.reset()
            to_device(metric, pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(pl_module, outputs, batch)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "test")
