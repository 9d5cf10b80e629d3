"""More objects, more slots, more steps than in training (section 4.4 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.common.curves import plot_steps, quartiles
from iodine_pl.callbacks.experiments.common.experiment import Experiment, need
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture, Row
from iodine_pl.callbacks.experiments.common.rows import Columns
from iodine_pl.evaluation.panels import COLUMNS, slot_panel
from iodine_pl.evaluation.scores import SCORES, step_scores

__all__ = ["Generalization"]


class Generalization(Experiment):
    """Scores the test scenes with other numbers of slots than in training, over more refinement steps.

    With ``min_objects`` and ``max_objects`` of the data, the test scenes can have more objects than those of training.
    The state after t steps does not depend on T, so one run of many steps gives the scores of all smaller T.

    The table has a row for each K and T. The pictures show median and quartiles of ARI, MSE and KL over the steps, with
    a color for each K (``generalization.png``), and the first scenes with the last K (``generalization_slots.png``).

    Args:
        num_slots: the values of K.
        num_iterations: the values of T in the table, increasing; each run has the last of them.
        num_images: rows of the picture.
        folder: where to write; None: ``experiments/`` in the run's folder.

    Raises:
        ValueError: if there is no K, or the T do not increase from 0 or more.
    """

    name = "generalization"

    def __init__(
        self,
        num_slots: Sequence[int],
        num_iterations: Sequence[int] = (5, 10),
        num_images: int = 6,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(folder)
        if not num_slots or not num_iterations or list(num_iterations) != sorted({0, *num_iterations} - {0}):
            raise ValueError(
                f"need some num_slots and increasing num_iterations, got {list(num_slots)} and {list(num_iterations)}"
            )
        self.num_slots = list(num_slots)
        self.num_iterations = list(num_iterations)
        self.num_images = num_images
        self._panel: Picture

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        need(self, batch, "label")
        measured: dict[str, Tensor] = {}
        for slots in self.num_slots:
            options = {"num_slots": slots, "num_iterations": self.num_iterations[-1], "return_steps": True}
            result = decompose(module, batch, batch_idx, **options)
            scores = step_scores(result, batch["label"])
            measured |= {f"{slots} {name}": values for name, values in scores.items()}
        if not batch_idx:
            first = slice(self.num_images)
            panel = slot_panel(batch["image"][first], result.select(first), batch["label"][first])
            run = f"K = {self.num_slots[-1]} and T = {self.num_iterations[-1]}"
            self._panel = Picture(panel, f"Test scenes with {run}: {COLUMNS}.")
        return measured

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        curves = {f"K = {slots}": {name: rows[f"{slots} {name}"] for name in SCORES} for slots in self.num_slots}
        table: list[Row] = []
        for slots, scores in zip(self.num_slots, curves.values(), strict=True):
            for count in self.num_iterations:
                means = {SCORES[name]: float(np.nanmean(values[:, count])) for name, values in scores.items()}
                table.append({"K": slots, "T": count, **means})
        figure = plot_steps(curves, ("ari_fg", "mse", "kl"))
        caption = "Scores over the refinement steps for each K: median and quartiles of the scenes."
        pictures = {"": Picture(figure, caption), "slots": self._panel}
        steps = {k: {name: quartiles(values) for name, values in scores.items()} for k, scores in curves.items()}
        return Outcome(table, pictures, {"steps": steps})
