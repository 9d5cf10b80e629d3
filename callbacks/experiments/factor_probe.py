"""Predicts the factors of objects from latents (section 4.3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.common.experiment import Experiment, need
from iodine_pl.callbacks.experiments.common.figures import line_style, tidy
from iodine_pl.callbacks.experiments.common.objects import Objects, latents_of_entities, objects_of, varying
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture, Row
from iodine_pl.callbacks.experiments.common.rows import Columns, of_all_processes
from iodine_pl.callbacks.experiments.common.training_scenes import train_rows
from iodine_pl.evaluation.probe import FactorKind, LinearProbe

__all__ = ["FactorProbe"]


class FactorProbe(Experiment):
    """Fits one linear layer from the latent of a slot to the factors of its object, and scores it on the test scenes.

    An object belongs to the slot whose mask overlaps it most. The layer is fitted on training scenes, separately for
    each refinement step. Scalars and angles (as cosine and sine) are fitted by least squares and scored by R2.
    Categories are fitted by cross-entropy and scored by accuracy; the accuracy of the most frequent category is given
    for comparison. Only visible objects are used, without the background. Factors that are the same in all objects are
    left out.

    Args:
        num_scenes: number of training scenes to fit on.
        factors: factor -> ``scalar``, ``angle`` or ``category``; None: those of the dataset.
        folder: where to write; None: ``experiments/`` in the run's folder.
    """

    name = "factor_probe"
    fields = ("masks", "latents")

    def __init__(
        self,
        num_scenes: int = 2000,
        factors: Mapping[str, FactorKind] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(folder)
        if num_scenes < 1:
            raise ValueError(f"num_scenes must be at least 1, got {num_scenes}")
        self.num_scenes = num_scenes
        self.factors = factors

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        kinds: Mapping[str, FactorKind] = self.factors or getattr(data, "factor_kinds", {})
        if not kinds:
            raise MisconfigurationException(
                "FactorProbe does not know the factors of these data: give factors, such as {x: scalar, shape: "
                "category}"
            )
        mine = train_rows(self, trainer, pl_module, self.num_scenes)
        self._train = objects_of(of_all_processes(mine, trainer.world_size))
        self._kinds = varying(self, kinds, self._train)

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        need(self, batch, "label", "factors")
        return latents_of_entities(decompose(module, batch, batch_idx, return_steps=True), batch, "latents")

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        train, test = self._train, objects_of(rows)
        kinds = self._kinds
        steps = [_fit_and_score(train, test, kinds, t) for t in range(train.latents.shape[1])]
        scores = {name: [step[name] for step in steps] for name in kinds}
        table = []
        for name, kind in kinds.items():
            chance = _most_frequent(train, test, name) if kind == "category" else 0.0
            measure = "accuracy" if kind == "category" else "R2"
            table.append({"factor": name, "measure": measure, "score": scores[name][-1], "without latents": chance})
        numbers = {"train_objects": len(train.latents), "test_objects": len(test.latents), "steps": scores}
        caption = (
            "Scores of the linear layer on test objects, fitted separately for each refinement step. Dotted, in the "
            "color of a curve: the score without latents."
        )
        return Outcome(table, {"": Picture(_plot(scores, table), caption)}, numbers)


def _fit_and_score(train: Objects, test: Objects, kinds: Mapping[str, FactorKind], step: int) -> dict[str, float]:
    return LinearProbe.fit(train.latents[:, step], train.factors, kinds).score(test.latents[:, step], test.factors)


def _most_frequent(train: Objects, test: Objects, name: str) -> float:
    code = np.bincount(train.factors[name].reshape(-1).astype(int)).argmax()
    return float((test.factors[name].reshape(-1).astype(int) == code).mean())


def _plot(scores: Mapping[str, list[float]], table: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(table):
        style = line_style(number)
        axes.plot(scores[row["factor"]], label=f"{row['factor']} ({row['measure']})", **style)
        if row["without latents"]:
            axes.axhline(row["without latents"], color=style["color"], linestyle=":", linewidth=1.2)
    axes.axhline(0.0, color="0.4", linestyle=":", linewidth=1.2)  # R2 without latents
    axes.set_xlabel("refinement step")
    axes.set_ylabel("score on test objects")
    axes.set_ylim(min(-0.05, axes.get_ylim()[0]), 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
