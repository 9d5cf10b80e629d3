"""Ends the processes that train together when one of them does not answer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

__all__ = ["PATIENCE", "end_others", "give_up_after", "kill_others", "one_is_gone"]

PATIENCE = 10.0
"""Seconds in which the other processes must end by themselves after the first has failed."""

_GONE = re.compile(
    r"Timed out (?:after .* )?waiting|closed by peer|reset by peer|Broken pipe|[Ww]atchdog|remote process exited"
)


def give_up_after(trainer: pl.Trainer, seconds: float) -> None:
    """Makes waiting longer than this for another process an error; torch's default is half an hour."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = timedelta(seconds=seconds)  # read when the processes first meet


def end_others(trainer: pl.Trainer, seconds: float) -> None:
    """Waits for the processes that this one started, and kills those that have not ended in ``seconds``, or PATIENCE.

    Args:
        trainer: has started them.
        seconds: how long the processes of this run wait for each other.
    """
    deadline = monotonic() + min(seconds, PATIENCE)
    for process in _others(trainer):
        try:
            process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def kill_others(trainer: pl.Trainer) -> None:
    """Kills the processes that this one started."""
    for process in _others(trainer):
        process.kill()


def _others(trainer: pl.Trainer) -> Sequence[subprocess.Popen[bytes]]:
    """Returns the processes that Lightning started, and takes them from it.

    If one of them fails, Lightning's observer kills this process within 5 seconds, which may not have said its error.
    Processes of multiprocessing end with this one.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return []
    others = [*launcher.procs]
    launcher.procs.clear()  # the observer has the same list
    return others


def one_is_gone(error: BaseException) -> bool:
    """Tells whether an error means that another process of the run has ended or does not answer."""
    return isinstance(error, RuntimeError) and _GONE.search(str(error)) is not None
