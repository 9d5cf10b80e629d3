"""The one folder of a run, independent of its loggers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import TensorBoardLogger

from iodine_pl.files.atomic import WriteError, remedy_of
from iodine_pl.files.lock import Lock, LockedError

__all__ = ["RunFolder", "RunLogger", "is_first_process", "run_folder"]


class RunFolder(pl.Callback):
    """Holds the folder of the Trainer's run: ``ROOT/NAME/version_N``, or the one that an earlier command made.

    The first process makes a new folder when it is first needed. Two runs that start at the same time never share a
    folder, since only one of them succeeds in making it. If two runs continue in the same folder, the second is
    refused.

    Args:
        root: parent folder of all runs.
        name: of the run.
        path: the folder to continue in; None: a new one.
    """

    def __init__(self, root: str | Path, name: str, path: Path | None = None) -> None:
        self.root = Path(root)
        self.name = name
        self.new = path is None
        self._path = path
        self._lock: Lock | None = None

    @staticmethod
    def of(trainer: pl.Trainer) -> RunFolder | None:
        """Returns a Trainer's RunFolder, or None."""
        return next((each for each in trainer.callbacks if isinstance(each, RunFolder)), None)  # type: ignore[attr-defined]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            self.lock()

    def lock(self) -> None:
        """Prevents other processes from training in the folder until :meth:`release`; only for the first process.

        Raises:
            MisconfigurationException: if another process trains there.
        """
        if self._lock is not None:
            return
        folder = self.claim()
        try:
            self._lock = Lock.of(folder / ".lock")
        except LockedError as error:
            raise MisconfigurationException(
                f"{folder} is being trained by {error}: wait for it or stop it, or start a new run without --ckpt_path"
            ) from error

    def release(self) -> None:
        """Lets others train in the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def claim(self) -> Path:
        """Makes the folder if it does not exist, and returns it; only for the first process."""
        if self._path is None:
            parent = self.root / self.name
            parent.mkdir(parents=True, exist_ok=True)
            taken = [re.fullmatch(r"version_(\d+)", path.name) for path in parent.iterdir()]
            number = max((int(match[1]) for match in taken if match), default=-1) + 1
            while self._path is None:
                try:
                    (parent / f"version_{number}").mkdir()
                    self._path = parent / f"version_{number}"
                except FileExistsError:
                    number += 1
        return self._path

    def agreed(self, trainer: pl.Trainer) -> Path:
        """Returns the folder on every process; all processes must call it."""
        self._path = trainer.strategy.broadcast(self.claim() if trainer.is_global_zero else self._path)
        assert self._path is not None
        return self._path


class RunLogger(TensorBoardLogger):
    """Writes TensorBoard's files into the folder of the run.

    Lightning needs them before any callback is set up, so they may be the first to need the folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder.root, name=folder.name, default_hp_metric=False)
        self._folder = folder

    def log_metrics(self, *arguments: Any, **named: Any) -> None:
        with self._said_when_full():
            super().log_metrics(*arguments, **named)

    def save(self) -> None:
        with self._said_when_full():
            super().save()

    def finalize(self, status: str) -> None:
        with self._said_when_full():
            super().finalize(status)

    @contextmanager
    def _said_when_full(self) -> Iterator[None]:
        """Adds the folder to an error of TensorBoard's thread.

        Raises:
            WriteError: if the disk is full, or the folder may not be written to.
        """
        try:
            yield
        except OSError as error:
            remedy = None if error.filename else remedy_of(error, Path(self.log_dir))
            if remedy is None:
                raise
            raise WriteError(error.errno, f"TensorBoard's file cannot be written: {remedy}") from error

    @property
    def log_dir(self) -> str:
        # The other processes write nothing, and Lightning sends them the first one's answer.
        return str(self._folder.claim()) if is_first_process() else ""

    @property
    def name(self) -> str:
        return Path(self.root_dir).name

    @property
    def root_dir(self) -> str:
        return str(Path(self.log_dir).parent)

    @property
    def save_dir(self) -> str:
        return str(Path(self.root_dir).parent)

    @property
    def version(self) -> str:
        return Path(self.log_dir).name


def is_first_process() -> bool:
    """Tells whether this process is the first of its run; works without a Trainer."""
    return not getattr(rank_zero_only, "rank", 0)


def run_folder(trainer: pl.Trainer) -> Path:
    """Returns the folder that a run writes to; all processes must call it, since the first sends it to the others.

    For a Trainer without :class:`RunFolder` it is the folder of its first logger, or its ``default_root_dir``.
    """
    folder = RunFolder.of(trainer)
    if folder is not None:
        return folder.agreed(trainer)
    return Path(trainer.log_dir or trainer.default_root_dir)
