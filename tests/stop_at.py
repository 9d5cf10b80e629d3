"""Callbacks that hold a batch until a signal was sent, or leave the other processes alone."""

import ctypes
import os
import time
from pathlib import Path

import pytorch_lightning as pl
import torch


class WaitAt(pl.Callback):
    """Writes its process's number to ``waits`` in a batch after a number of updates, and waits for ``go``.

    With ``for_ever`` it then waits in C, where Python calls no handler of signals, as in an operation that takes long.
    """

    def __init__(self, step: int, where: str = "train", rank: int = 0, for_ever: bool = False) -> None:
        self.step = step
        self.where = where
        self.rank = rank
        self.for_ever = for_ever

    def on_train_batch_start(self, trainer, *arguments):
        self._wait(trainer, "train")

    def on_validation_batch_start(self, trainer, *arguments):
        self._wait(trainer, "sanity check" if trainer.sanity_checking else "validation")

    def on_test_batch_start(self, trainer, *arguments):
        self._wait(trainer, "test")

    def _wait(self, trainer, where):
        if where == self.where and trainer.global_step == self.step and trainer.global_rank == self.rank:
            self.step = None  # once
            part = Path(".waits")
            part.write_text(str(os.getpid()))
            part.rename("waits")
            while not Path("go").exists():
                time.sleep(0.05)
                torch.ones(1).sum()
            if self.for_ever:
                lock = ctypes.create_string_buffer(256)  # zeros are an open mutex
                for _ in range(2):
                    ctypes.CDLL(None).pthread_mutex_lock(lock)


class LeaveAt(pl.Callback):
    """Makes a process stop answering the others after an update.

    Args:
        step: the update.
        rank: the process.
        how: ``hangs``, or ``exits`` with code 0.
    """

    def __init__(self, step: int, rank: int, how: str) -> None:
        self.step, self.rank, self.how = step, rank, how

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            if self.how == "exits":
                os._exit(0)
            time.sleep(600)
