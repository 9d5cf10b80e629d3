"""A callback that kills a run, as a power cut would, or one of its processes."""

import os
import signal

import pytorch_lightning as pl


class KillAt(pl.Callback):
    """Kills all processes of the run after an update, whatever they are doing.

    Args:
        step: the update.
        rank: kill this process alone.
    """

    def __init__(self, step: int, rank: int | None = None) -> None:
        self.step = step
        self.rank = rank

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step != self.step:
            return
        if self.rank is None:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        elif self.rank == trainer.global_rank:
            os.kill(os.getpid(), signal.SIGKILL)
