"""The base class of experiments: measurements of every test image from all processes, and files at the end."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor

from iodine_pl.callbacks.contract import require_fields
from iodine_pl.callbacks.experiments.common.outcome import Outcome, as_text
from iodine_pl.callbacks.experiments.common.rows import Columns, as_array, of_all_processes
from iodine_pl.callbacks.run_folder import run_folder
from iodine_pl.checkpoints.finding import name_of

__all__ = ["Experiment", "need"]


def need(experiment: pl.Callback, batch: Any, *names: str) -> None:
    """Checks that a batch has the fields that an experiment needs.

    Raises:
        MisconfigurationException: if not.
    """
    missing = [name for name in names if not isinstance(batch, dict) or name not in batch]
    if missing:
        raise MisconfigurationException(
            f"{type(experiment).__name__} needs batches that are dicts with {', '.join(names)}; these have no "
            f"{', '.join(missing)}. Take data with labels, or leave the experiment out"
        )


class Experiment(pl.Callback):
    """Measures every test image, on any number of processes; the first process writes the results.

    It acts only in ``test``. ``NAME.json``, ``NAME.csv`` and ``NAME*.png`` go to ``experiments/`` in the run's folder.
    The table is printed. Loggers that take images get the table and the pictures. Batches must have the ``index`` of
    each image.

    A subclass measures a batch in :meth:`measure`, and makes the results from all measurements in :meth:`conclude`.

    Args:
        folder: where to write; None: ``experiments/`` in the run's folder.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ("masks", "means", "reconstruction", "nll", "kl", "trace")
    """Fields that the return value of the module's ``forward`` must have."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._rows: dict[str, list[NDArray[Any]]] = {}

    @abstractmethod
    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Returns the measurements of a batch: tensors with a row for each image."""

    @abstractmethod
    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        """Returns the results; called only in the first process, with the rows of all images in their order."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "test":
            require_fields(self, pl_module, *self.fields)
            folder = run_folder(trainer)
            self.target = self.folder or folder / "experiments"

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows = {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        need(self, batch, "image", "index")
        measured = {"index": batch["index"], **self.measure(pl_module, batch, batch_idx)}
        for name, values in measured.items():
            self._rows.setdefault(name, []).append(as_array(values))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        mine = {name: np.concatenate(parts) for name, parts in self._rows.items()}
        self._rows = {}
        rows = of_all_processes(mine, trainer.world_size)
        if not trainer.is_global_zero:
            return
        outcome = self.conclude(trainer, pl_module, rows)
        about = {
            "model": type(pl_module).__name__,
            "checkpoint": None if trainer.ckpt_path is None else name_of(trainer.ckpt_path),
            "data": type(trainer.datamodule).__name__,  # type: ignore[attr-defined]
            "images": len(rows["index"]),
        }
        files = outcome.write(self.target, self.name, trainer, about)
        print(f"\n{self.name}, {len(rows['index'])} images\n\n{as_text(outcome.table)}\n")
        print("\n".join(f"wrote {file}" for file in files))
