"""Stops training at a signal: saves a checkpoint, says so, and exits with the signal's exit status."""

from __future__ import annotations

import _thread
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
from iodine_pl.cli.processes import kill_others

__all__ = ["StopAtSignal", "Stopped", "stopped_by"]

_TWICE = 0.5  # seconds: `timeout` signals both its command and the process group, which must count once


class Stopped(SystemExit):
    """Ends the process with the exit status that the shell expects after a signal.

    The first process has this status for all. Lightning kills it at once if another one fails, so the others end with
    0.
    """

    def __init__(self, signum: int, saved: str = "") -> None:
        if is_first_process():
            print(f"stopped by {signal.Signals(signum).name}{saved}", flush=True)
        super().__init__(128 + signum if is_first_process() else 0)


def stopped_by(error: SystemExit) -> int | None:
    """Returns the signal that made Lightning end a command; None if there was none."""
    if isinstance(error, SIGTERMException):
        return signal.SIGTERM
    return signal.SIGINT if isinstance(error.__context__, KeyboardInterrupt) else None


class StopAtSignal(Checkpoint):
    """Stops training at SIGINT and SIGTERM, at the end of the current batch, and saves ``last.ckpt``.

    One process or all of them may receive the signal; they agree at the end of each batch. A single process also stops
    in the middle of a validation, since :class:`LastCheckpoint` has saved before it. Several processes finish the
    validation, since their batches differ. If only the last validation is left, the run finishes. A second Ctrl-C ends
    the process at once. Under SLURM with automatic requeueing, Lightning handles the signals.

    It is a Checkpoint because Lightning calls checkpoint callbacks last.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._since = 0.0
        self._step = 0
        self._process = 0
        self._of_slurm: set[int] = set()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
            return
        self._signal = 0
        self._process = os.getpid()
        self._trainer = trainer
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._of_slurm = {signal.SIGTERM, environment.requeue_signal or signal.SIGTERM}
        else:
            # Lightning's handler communicates with the other processes, and waits forever if they are in another
            # collective call. It is active before the sanity check and during an evaluation.
            ours = self._note if stage == "fit" else self._leave
            trainer._signal_connector._sigterm_notifier_fn = ours  # type: ignore[assignment, method-assign]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._process == os.getpid():
            # The Trainer has kept the handlers that were there, and puts them back at its end.
            for signum in {signal.SIGINT, signal.SIGTERM} - self._of_slurm:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker, which ends with its loader
            return
        if not self._signal:
            self._signal, self._since = signum, time.monotonic()
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            _thread.start_new_thread(self._end_at_the_next, (reader,))  # takes no lock that this thread may hold
            if is_first_process():  # print() is not reentrant
                os.write(2, b"\nstopping after this batch; Ctrl-C stops at once\n")

    def _end_at_the_next(self, reader: int) -> None:
        """Ends the processes at the next Ctrl-C, which Python's handlers notice only after an operation of torch."""
        while os.read(reader, 1)[0] != signal.SIGINT or time.monotonic() - self._since < _TWICE:
            pass
        kill_others(self._trainer)
        os._exit(128 + signal.SIGINT)

    def _leave(self, signum: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() == self._process:
            kill_others(self._trainer)  # they may not have received the signal, and would wait for this process
        raise Stopped(signum)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated, which a checkpoint does not hold
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


def _last_checkpoints(trainer: pl.Trainer) -> list[LastCheckpoint]:
    return [each for each in trainer.callbacks if isinstance(each, LastCheckpoint)]  # type: ignore[attr-defined]


def _stop(trainer: pl.Trainer, signum: int) -> NoReturn:
    saved = [os.path.relpath(each.path) for each in _last_checkpoints(trainer) if each.saved]
    raise Stopped(signum, "".join(f", saved {path}" for path in saved))
