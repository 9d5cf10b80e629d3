"""The base class of callbacks that score decompositions by true labels in validation and test."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from iodine_pl.callbacks.contract import decomposition_of, require_fields
from iodine_pl.evaluation.metrics import to_device

__all__ = ["LabelScores"]


class LabelScores(pl.Callback):
    """Logs means over all images, each counted once, so that they do not depend on the number of processes.

    It needs batches that are dicts with ``label`` (B, H, W), or (B, T+1, H, W) for sequences, whose last frame is
    scored. The module's ``forward`` must be annotated to return an object with ``masks`` (B, K, H, W). If
    ``validation_step`` returns such an object, it is used; else ``forward`` is called.

    Args:
        metrics: updated by :meth:`add`.
    """

    scores: ClassVar[str]
    """Names of the scores in messages, separated by commas."""
    in_bar: ClassVar[tuple[str, ...]] = ()
    """The names of the scores in the progress bar."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._unlabeled = self._said_so = False

    @abstractmethod
    def add(self, label: Tensor, result: Any) -> None:
        """Updates the metrics with the true ``label`` (B, H, W) and the decomposition of a batch."""

    @abstractmethod
    def means(self) -> Mapping[str, Tensor | float]:
        """Returns name -> value to log; names are without the stage."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_fields(self, pl_module, "masks")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unlabeled = False
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
        if not isinstance(batch, dict) or "label" not in batch:
            self._unlabeled = True
            self._warn_once(trainer)
            return
        label = batch["label"] if batch["label"].ndim == 3 else batch["label"][:, -1]
        self.add(label, decomposition_of(pl_module, batch, outputs))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "test")

    def _warn_once(self, trainer: pl.Trainer) -> None:
        """Warns for all callbacks of this kind together, so that their user sees one warning."""
        alike = [callback for callback in trainer.callbacks if isinstance(callback, LabelScores)]  # type: ignore[attr-defined]
        if not any(callback._said_so for callback in alike):
            scores = ", ".join(callback.scores for callback in alike)
            rank_zero_warn(f"The images have no labels, so these scores are not logged: {scores}")
        self._said_so = True

    def _log(self, pl_module: pl.LightningModule, stage: str) -> None:
        if self._unlabeled:
            return
        for name, value in self.means().items():
            # Already the same on all processes; sync_dist tells Lightning so.
            pl_module.log(f"{stage}/{name}", value, prog_bar=name in self.in_bar, sync_dist=True)
