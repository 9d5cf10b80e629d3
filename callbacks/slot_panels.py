"""Draws what every slot shows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image

from iodine_pl.callbacks.contract import decompose, decomposed_mean, decomposition_of, require_fields
from iodine_pl.callbacks.loggers import log_image
from iodine_pl.callbacks.run_folder import run_folder
from iodine_pl.errors import require
from iodine_pl.evaluation.drawing import Pixels
from iodine_pl.evaluation.panels import Row, draw_rows, refinement_panel, slot_rows
from iodine_pl.files.atomic import written_beside

__all__ = ["SlotPanels"]


class SlotPanels(pl.Callback):
    """Draws the slots of the first images of each validation, test and prediction, and one image over the steps.

    ``slots`` shows the decompositions that the step returned, which :class:`AdjustedRandIndex` scores. ``refinement``
    shows the first image over the refinement steps, for which its batch is decomposed again. A
    :class:`iodine_pl.SceneModel` does so with the same noise, so the row of the last step equals the first row of
    ``slots``. The row ``mean`` decodes the posterior's mean, the others decode a sample. This picture needs a
    ``forward`` that takes ``return_steps``, like IODINE's.

    PNG files go to ``panels/`` in the run's folder; no logger is needed. Loggers that take images get them too, see
    :mod:`iodine_pl.callbacks.loggers`. Files of a test and of predictions begin with ``test_`` and ``predict_``. The
    module's ``forward`` must be annotated to return an object with ``reconstruction``, ``masks`` and ``means``. If the
    step does not return one, ``forward`` is called, with a random state of its own. Only the first process draws.

    Args:
        num_images: rows of the picture.
        every_n_validations: draw only in every n-th validation.

    Raises:
        ValueError: if one of them is less than 1.
    """

    def __init__(self, num_images: int = 8, every_n_validations: int = 1) -> None:
        require("at least 1", num_images=num_images, every_n_validations=every_n_validations)
        self.num_images = num_images
        self.every_n_validations = every_n_validations
        self.latest: Path | None = None
        self._validations = 0
        self._drawing = False
        self._rows: list[Row] = []
        self._refinement: Pixels | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_fields(self, pl_module, "reconstruction", "masks", "means")
        self._folder = run_folder(trainer) / "panels"

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._start(trainer, drawing=self._validations % self.every_n_validations == 0)
            self._validations += 1

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, drawing=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        missing = self.num_images - len(self._rows)
        if not self._drawing or dataloader_idx or missing <= 0:
            return
        images = batch["image"] if isinstance(batch, dict) else batch
        label = batch.get("label") if isinstance(batch, dict) else None
        with _random_state_of_its_own(pl_module.device):
            self._rows += slot_rows(images, decomposition_of(pl_module, batch, outputs), label)[:missing]
        if not batch_idx and "return_steps" in inspect.signature(pl_module.forward).parameters:
            with _random_state_of_its_own(pl_module.device):
                result = decompose(pl_module, batch, batch_idx, return_steps=True)
                mean = decomposed_mean(pl_module, result)
            self._refinement = refinement_panel(images, result.steps, label, mean)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stage = "test_" if trainer.testing else "predict_" if trainer.predicting else ""
        if self._rows:
            self.latest = self._write(trainer, f"{stage}slots", draw_rows(self._rows))
        if self._refinement is not None:
            self._write(trainer, f"{stage}refinement", self._refinement)
        self._start(trainer, drawing=False)

    on_predict_epoch_start = on_test_epoch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def _start(self, trainer: pl.Trainer, drawing: bool) -> None:
        self._drawing = drawing and trainer.is_global_zero
        self._rows, self._refinement = [], None

    def _write(self, trainer: pl.Trainer, name: str, picture: Pixels) -> Path:
        path = self._folder / f"{name}_{trainer.global_step:07d}.png"
        with written_beside(path) as partial:
            Image.fromarray(picture).save(partial, format="PNG")
        log_image(trainer, name, picture)
        return path


@contextmanager
def _random_state_of_its_own(device: torch.device) -> Iterator[None]:
    """Gives a module that draws its own noise the same noise for every picture, and restores the random state."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        yield
