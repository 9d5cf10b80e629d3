"""Saves the configuration of a run in its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.trainer.states import TrainerFn

from iodine_pl.callbacks.run_folder import RunFolder, run_folder
from iodine_pl.checkpoints.configuration import MARK
from iodine_pl.files.atomic import written_beside

__all__ = ["SaveConfigOfRun", "is_of_run"]


def is_of_run(folder: Path) -> bool:
    """Tells whether a folder with a ``config.yaml`` was made by a run; other folders must not be written to."""
    if re.fullmatch(r"version_\d+", folder.resolve().name):
        return True
    with (folder / "config.yaml").open() as file:
        return file.readline() == MARK


class SaveConfigOfRun(SaveConfigCallback):
    """Saves ``config.yaml`` in the run's folder, for training and for any command that made the folder.

    A test must not replace the configuration of the training. The configuration leaves out the checkpoint that training
    continues from, so that it can start a new run. If training continues with other settings, they replace the previous
    ones after the first batch: settings that do not fit the checkpoint or the data fail before, and the run can still
    continue without them. A file that is deleted during training is written again with the next checkpoint.
    """

    _changed = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder, known = run_folder(trainer), RunFolder.of(trainer)
        if not trainer.is_global_zero or not (stage == "fit" or (known is not None and known.new)):
            return
        config = self.config.clone()
        if stage == "fit":
            config["ckpt_path"] = None
        self.path, self.text = folder / "config.yaml", MARK + self.parser.dump(config, skip_none=False)
        if self.path.is_file():
            self._changed = self.path.read_text(encoding="utf-8") != self.text
        else:
            self._write()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._changed:
            self._changed = False
            self._write()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and not self.path.exists():
            rank_zero_warn(f"{self.path} was deleted during the run and is written again.")
            self._write()

    def _write(self) -> None:
        with written_beside(self.path) as partial:
            partial.write_text(self.text, encoding="utf-8")
