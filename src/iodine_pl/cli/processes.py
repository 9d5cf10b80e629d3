"""Ends the processes that train together when one of them does not answer."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy

__all__ = ["PATIENCE", "end_others", "give_up_after", "one_is_gone"]

PATIENCE = 10.0
"""Seconds in which the processes must end by themselves after the first has failed."""

_GONE = re.compile(r"Timed out waiting|closed by peer|reset by peer|Broken pipe|[Ww]atchdog|remote process exited")


def give_up_after(trainer: pl.Trainer, seconds: float) -> None:
    """Makes waiting longer than this for another process an error; torch's default is half an hour."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = timedelta(seconds=seconds)  # read when the processes first meet


def end_others(trainer: pl.Trainer, seconds: float) -> None:
    """Waits for the processes that this one started, and kills those that do not end within ``seconds``, or PATIENCE.

    Args:
        trainer: has started them.
        seconds: how long the processes of this run wait for each other.
    """
    processes = getattr(trainer.strategy.launcher, "procs", [])
    for process in processes:
        try:
            process.wait(min(seconds, PATIENCE))
        except subprocess.TimeoutExpired:
            process.kill()


def one_is_gone(error: BaseException) -> bool:
    """Tells whether an error means that another process of the run has ended or does not answer."""
    return isinstance(error, RuntimeError) and _GONE.search(str(error)) is not None
