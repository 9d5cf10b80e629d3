"""Ends training at a signal: saves first, says so, and exits with the number that the signal stands for."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from iodine_pl.callbacks import LastCheckpoint
from iodine_pl.callbacks.last_checkpoint import ends
from iodine_pl.callbacks.run_folder import is_first_process

__all__ = ["StopAtSignal", "Stopped", "stopped_by"]

_TWICE = 0.5  # seconds: `timeout` sends a signal to its command and to the group of processes, and means it once


class Stopped(SystemExit):
    """Ends the process as the shell expects of one that a signal stopped.

    The first process answers for all. Lightning kills it at once if another one fails, so the others end with 0.
    """

    def __init__(self, signum: int, saved: str = "") -> None:
        if is_first_process():
            print(f"stopped by {signal.Signals(signum).name}{saved}", flush=True)
        super().__init__(128 + signum if is_first_process() else 0)


def stopped_by(error: SystemExit) -> int | None:
    """Returns the signal at which Lightning ended a command; None if there was none."""
    if isinstance(error, SIGTERMException):
        return signal.SIGTERM
    return signal.SIGINT if isinstance(error.__context__, KeyboardInterrupt) else None


class StopAtSignal(Checkpoint):
    """Stops training at SIGINT and SIGTERM, at the end of the batch that runs, with a ``last.ckpt`` of that batch.

    The signal may come to one process or to all of them: they agree at the end of each batch. A single process also
    stops in the middle of a validation, before which :class:`LastCheckpoint` has saved; several end it first, as each
    has batches of its own. Where nothing but the last validation is left, the run comes to its end instead. A second
    Ctrl-C ends the process at once. What SLURM sends stays Lightning's where it puts the job back into the queue.

    It is a Checkpoint because Lightning calls these after all other callbacks.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._since = 0.0
        self._step = 0
        self._process = 0
        self._of_slurm: set[int] = set()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if threading.current_thread() is not threading.main_thread():  # which alone may ask for signals
            return
        self._signal = 0
        self._process = os.getpid()
        self._kill = trainer.strategy.launcher.kill if trainer.strategy.launcher is not None else None
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._of_slurm = {signal.SIGTERM, environment.requeue_signal or signal.SIGTERM}
        else:
            # Lightning's own asks the other processes from within the handler, and waits for them for ever where they
            # are in another call. It is in place from before the sanity check, or through an evaluation.
            ours = self._note if stage == "fit" else _leave
            trainer._signal_connector._sigterm_notifier_fn = ours  # type: ignore[assignment, method-assign]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._process == os.getpid():
            # The Trainer has kept the handlers that were there, and puts them back at its end.
            for signum in {signal.SIGINT, signal.SIGTERM} - self._of_slurm:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that was forked from it: it ends when the process asks for no more
            return
        now = time.monotonic()
        if not self._signal:
            self._signal, self._since = signum, now
            if is_first_process():  # print() must not interrupt itself
                os.write(2, b"\nstopping after this batch; Ctrl-C stops at once\n")
        elif signum == signal.SIGINT and now - self._since > _TWICE:
            if self._kill is not None:
                self._kill(signal.SIGKILL)
            os._exit(128 + signum)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated, and no checkpoint has them
            return
        mine = torch.tensor(self._signal, device=trainer.strategy.root_device)
        agreed = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if agreed and not ends(trainer):
            for callback in _last_checkpoints(trainer):
                callback.save(trainer)
            _stop(trainer, agreed)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._signal and trainer.world_size == 1 and not ends(trainer):
            _stop(trainer, self._signal)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(signum)


def _last_checkpoints(trainer: pl.Trainer) -> list[LastCheckpoint]:
    return [each for each in trainer.callbacks if isinstance(each, LastCheckpoint)]  # type: ignore[attr-defined]


def _stop(trainer: pl.Trainer, signum: int) -> NoReturn:
    saved = [os.path.relpath(each.path) for each in _last_checkpoints(trainer) if each.saved]
    raise Stopped(signum, "".join(f", saved {path}" for path in saved))
