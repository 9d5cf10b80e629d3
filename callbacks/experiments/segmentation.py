"""Segmentation: figure and scores (section 4.1 of the paper)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from iodine_pl.callbacks.contract import decompose, decomposed_mean
from iodine_pl.callbacks.experiments.common.curves import plot_steps, quartiles
from iodine_pl.callbacks.experiments.common.experiment import Experiment, need
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture
from iodine_pl.callbacks.experiments.common.rows import Columns
from iodine_pl.evaluation.panels import COLUMNS, refinement_panel, slot_panel
from iodine_pl.evaluation.scores import SCORES, step_scores

__all__ = ["Segmentation"]


class Segmentation(Experiment):
    """Scores the segmentation of every test image at every refinement step, and draws the first ones.

    The scores are foreground ARI (the paper's), ARI of all pixels, mean IoU of objects and slots matched one to one,
    mean best overlap of objects and any slots, mean squared error of the reconstruction, and ELBO and KL in nats. Mean
    and quartiles over images are reported.

    The pictures show input, reconstruction, true and found segmentation and each slot on white (``segmentation.png``),
    one image over the steps (``segmentation_refinement.png``), and the scores over the steps
    (``segmentation_steps.png``). Their decompositions are those that are scored.

    Args:
        num_images: rows of the picture.
        folder: where to write; None: ``experiments/`` in the run's folder.
    """

    name = "segmentation"

    def __init__(self, num_images: int = 8, folder: str | Path | None = None) -> None:
        super().__init__(folder)
        self.num_images = num_images
        self._panels: dict[str, Picture] = {}

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        need(self, batch, "label")
        result = decompose(module, batch, batch_idx, return_steps=True)
        if not batch_idx:
            images = batch["image"]
            first = slice(self.num_images)
            panel = slot_panel(images[first], result.select(first), batch["label"][first])
            self._panels = {"": Picture(panel, f"Test images: {COLUMNS}.")}
            if len(result.steps) > 1:
                mean = decomposed_mean(module, result)
                over_steps = refinement_panel(images, result.steps, batch["label"], mean)
                last = "" if mean is None else " The last row decodes the posterior's mean, the others a sample."
                caption = f"The first test image, a row for each refinement step: {COLUMNS}.{last}"
                self._panels["refinement"] = Picture(over_steps, caption)
        return step_scores(result, batch["label"])

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        last = {name: quartiles(rows[name][:, -1]) for name in SCORES}
        table = [{"score": SCORES[name], **values} for name, values in last.items()]
        pictures = dict(self._panels)
        if rows["mse"].shape[1] > 1:
            curves = {name: rows[name] for name in SCORES}
            figure = plot_steps({"": curves}, ("ari_fg", "miou", "mse", "elbo"))
            pictures["steps"] = Picture(figure, "Scores over the refinement steps: median and quartiles of the images.")
        return Outcome(table, pictures, {"steps": {name: quartiles(rows[name]) for name in SCORES}})
