"""Keeps a checkpoint to resume from."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from iodine_pl.callbacks.run_folder import run_folder
from iodine_pl.errors import require

__all__ = ["LastCheckpoint"]


class LastCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` in the run's folder every few minutes or steps, and when training stops.

    Lightning's ModelCheckpoint does not save when a run stops in the middle of an epoch. A checkpoint is also saved
    before each validation, since nothing is saved during one. If a checkpoint's update has not been validated, a
    training resumed from it runs this validation first. At the end of a run the checkpoint is saved after the last
    validation, since a finished run cannot be resumed: list the callback after BestCheckpoint.

    Args:
        every_n_minutes: time between two saves; None: not by time.
        every_n_train_steps: updates between two saves; None: not by updates.

    Raises:
        ValueError: if the time is negative, or the updates are less than 1.
    """

    def __init__(self, every_n_minutes: float | None = 5.0, every_n_train_steps: int | None = None) -> None:
        require("not negative", every_n_minutes=every_n_minutes)
        require("at least 1", every_n_train_steps=every_n_train_steps)
        self.every_n_minutes = every_n_minutes
        self.every_n_train_steps = every_n_train_steps
        self.saved = False
        self._saved_at_step = 0
        self._saved_at_time = 0.0
        self._validation_due = False  # of the checkpoint's update

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.path = run_folder(trainer) / "checkpoints" / "last.ckpt"

    def state_dict(self) -> dict[str, bool]:
        return {"validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self._validation_due = state_dict["validation_due"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at_step = trainer.global_step
        self._saved_at_time = time.monotonic()
        if self._validation_due:
            validate = trainer.fit_loop.epoch_loop.val_loop
            validate.restarting = False  # its saved progress is that of the validation before
            trainer.validating = True
            validate.run()
            validate._has_run = False  # else the Trainer takes an epoch that it resumes at the end for done, forever
            trainer.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._saved_at_step:  # between the micro-batches of one update
            return
        due = self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
        if self.every_n_minutes is not None:
            late = time.monotonic() - self._saved_at_time >= 60.0 * self.every_n_minutes
            due = due or trainer.strategy.broadcast(late)  # clocks differ: the first process decides
        loop = trainer.fit_loop
        self._validation_due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
        if ends(trainer):
            # Not in on_train_end, when the Trainer takes an unfinished epoch for a whole one.
            due = not self._validation_due
        if due:
            self.save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _in_training(trainer) and trainer.global_step != self._saved_at_step and not ends(trainer):
            self.save(trainer)
        self._validation_due = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _in_training(trainer) and ends(trainer):
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Saves at the end of a training batch; every process must call it."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._saved_at_step = trainer.global_step
        self._saved_at_time = time.monotonic()
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved = True


def ends(trainer: pl.Trainer) -> bool:
    """Tells whether training ends with the last batch or the validation that follows it."""
    last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
    return last_epoch or trainer.global_step == trainer.max_steps or trainer.should_stop


def _in_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
