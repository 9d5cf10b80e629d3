"""Writes predictions to HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from iodine_pl.callbacks.contract import decomposition_of, require_fields
from iodine_pl.callbacks.run_folder import run_folder
from iodine_pl.datamodules.hdf5.output import OutputFile
from iodine_pl.datamodules.hdf5.writer import append_rows
from iodine_pl.files.atomic import move_into_place

__all__ = ["PredictionWriter"]

_FIELDS = ("masks", "means", "mean", "std", "latents")


class PredictionWriter(pl.Callback):
    """Writes ``predictions.h5`` during ``predict``: float32 ``masks`` (N, K, H, W), ``means`` (N, K, C, H, W),
    ``mean``, ``std`` and ``latents`` (N, K, D), and, if batches have it, ``index`` (N,), the position of each image in
    the data file.

    The file appears when it is complete. Several processes write one part each, which the first process joins.

    Args:
        path: the file; None: ``predictions.h5`` in the run's folder.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        require_fields(self, pl_module, *_FIELDS)
        folder = run_folder(trainer)
        self.target = self.path or folder / "predictions.h5"
        if self.target.is_dir():
            raise MisconfigurationException(f"{self.target} is a folder: name the file, such as {self.target}/a.h5")
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._file = OutputFile(self._part(trainer.global_rank))

    def _part(self, rank: int) -> Path:
        return self.target.with_name(f".{self.target.name}.part{rank}")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        result = decomposition_of(pl_module, batch, outputs)
        columns: dict[str, Tensor] = {name: getattr(result, name).float() for name in _FIELDS}
        if isinstance(batch, dict) and "index" in batch:
            columns["index"] = batch["index"]
        for name, values in columns.items():
            append_rows(self._file, name, values.cpu().numpy(), chunk=1)
        self._file.check()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._file.close()
        self._file.check()
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            _join(parts)
            move_into_place(parts[0], self.target)
            print(f"Wrote {self.target}")
        trainer.strategy.barrier("predictions joined")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "_file"):
            self._file.close()
            self._part(trainer.global_rank).unlink(missing_ok=True)


def _join(parts: Sequence[Path]) -> None:
    """Appends the other parts to the first one in order, a block at a time."""
    with h5py.File(parts[0], "r+") as joined:
        for part in parts[1:]:
            with h5py.File(part, "r") as file:
                for name, dataset in file.items():
                    for start in range(0, len(dataset), 64):
                        append_rows(joined, name, dataset[start : start + 64], chunk=1)
            part.unlink()
