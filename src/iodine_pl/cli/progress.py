"""Shows progress: a bar on a terminal, a line after each validation in a log, and a table of scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.callbacks import TQDMProgressBar

__all__ = ["ProgressLines", "StepsBar", "table_of"]

_SCORES = ("ari_fg", "ari", "miou", "mbo", "mse", "elbo", "nll", "kl")
_IN_LINE = ("ari_fg", "ari", "mse", "elbo")


def _total(trainer: pl.Trainer) -> int:
    """Returns the updates after which training stops; -1 if there is no limit."""
    batches = trainer.num_training_batches
    by_epochs = -1
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and batches != float("inf"):
        by_epochs = trainer.max_epochs * -(-int(batches) // trainer.accumulate_grad_batches)
    limits = [limit for limit in (trainer.max_steps, by_epochs) if limit > 0]
    return min(limits, default=-1)


class StepsBar(TQDMProgressBar):
    """Counts the updates of the whole training instead of the batches of an epoch, and estimates the remaining time."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        total = _total(trainer)
        if total < 0:
            super().on_train_epoch_start(trainer, *_)
            return
        bar = self.train_progress_bar
        if bar.total != total:
            bar.reset(total)
            bar.initial = bar.n = trainer.global_step
            bar.set_description("updates")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        total = _total(trainer)
        if total < 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif self._should_update(trainer.global_step, total):
            self.train_progress_bar.n = trainer.global_step
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))


class ProgressLines(pl.Callback):
    """Writes a line after each validation in training: updates done, remaining time, scores."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since, self._from = time.monotonic(), trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.global_step - getattr(self, "_from", trainer.global_step)
        if trainer.sanity_checking or done <= 0:
            return
        total = _total(trainer)
        line = f"{trainer.global_step:,} updates"
        if total > 0:
            left = (time.monotonic() - self._since) / done * (total - trainer.global_step)
            line = f"{trainer.global_step:,} of {total:,} updates, {timedelta(seconds=round(left))} left"
        known = trainer.callback_metrics
        scores = [f"{name} {float(known[f'val/{name}']):.4g}" for name in _IN_LINE if f"val/{name}" in known]
        rank_zero_info(f"{line}: {', '.join(scores)}")


def table_of(stage: str, metrics: Mapping[str, Any]) -> str:
    """Returns the main scores, one per line, with four digits; all scores if there are no main ones."""
    named = [f"{stage}/{name}" for name in _SCORES if f"{stage}/{name}" in metrics]
    shown = named or [name for name in metrics if "_steps/" not in name]
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}  {float(metrics[name]):>10.4g}" for name in shown)
