"""Keeps the best checkpoint, also for data without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from iodine_pl.callbacks.run_folder import RunFolder
from iodine_pl.checkpoints.reading import read_file

__all__ = ["BestCheckpoint"]


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``, by a metric that some data do not have.

    A resumed training compares with the score in ``best.ckpt`` itself, since the checkpoint that it resumes from may
    have been saved before the validation with this score, or in another folder.

    Args:
        monitor: the metric.
        fallback: the metric to use if validation did not log ``monitor``.
        filename: without its ending.
        mode: ``max``: the highest value is best, for both metrics; ``min``: the lowest.
        arguments: further arguments of Lightning's ModelCheckpoint.
    """

    def __init__(
        self,
        monitor: str = "val/ari_fg",
        fallback: str = "val/elbo",
        filename: str = "best",
        mode: str = "max",
        **arguments: Any,
    ) -> None:
        # Saved after validation, which computes the metric, and always under the same name.
        super().__init__(
            monitor=monitor,
            filename=filename,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
            **arguments,
        )
        self.fallback = fallback
        self._chosen_by: str | None = None  # the metric of the score in the file

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint, the same for both metrics."""
        return type(self).__qualname__

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = RunFolder.of(trainer)
        if folder is not None and self.dirpath is None:
            self.dirpath = str(folder.agreed(trainer) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Ignores the state in the checkpoint that training resumes from; see :meth:`on_fit_start`."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads the score from an existing file.

        Raises:
            CheckpointError: if the file is damaged.
        """
        path = Path(str(self.dirpath), f"{self.filename}{self.FILE_EXTENSION}")
        state = self._state_in(path) if trainer.is_global_zero and path.is_file() else {}
        state = trainer.strategy.broadcast(state)
        self._chosen_by = state.get("monitor")
        if self._chosen_by is not None:
            score = state["best_model_score"].clone()  # out of the mapped file
            self.best_model_path = self.kth_best_model_path = str(path)
            self.best_model_score = self.kth_value = score
            self.best_k_models = {str(path): score}

    def _state_in(self, path: Path) -> Mapping[str, Any]:
        state: Mapping[str, Any] = read_file(path).get("callbacks", {}).get(self.state_key, {})
        return state if state.get("best_model_score") is not None else {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        known = trainer.callback_metrics
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor not in known and self.fallback in known:
            rank_zero_info(
                f"{self.monitor} is not known of these data: the best checkpoint is chosen by {self.fallback}."
            )
            self.monitor = self.fallback
        if self._chosen_by not in (None, self.monitor):  # scores of two metrics cannot be compared
            rank_zero_info(
                f"{self.best_model_path} was chosen by {self._chosen_by}; from now on {self.monitor} decides."
            )
            self.best_k_models = {}
        self._chosen_by = None
        super().on_validation_end(trainer, pl_module)
