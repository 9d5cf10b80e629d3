"""Scores combinations of factors that are not in training (section 4.4 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from iodine_pl import adjusted_rand_index
from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.common.experiment import Experiment, need
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture, Row
from iodine_pl.callbacks.experiments.common.rows import Columns
from iodine_pl.evaluation.matching import entity_masks, object_iou
from iodine_pl.evaluation.panels import COLUMNS, slot_panel

__all__ = ["HeldOut"]


class HeldOut(Experiment):
    """Compares the objects that training excluded with the others in the same test scenes.

    It needs data with ``exclude``, such as ``{shape: sphere, color: green}``, and ``test_split: excluded``, so that
    each test scene has such an object. It measures the IoU of each visible object with its slot (matched one to one),
    the mean squared error of the reconstruction in the object's pixels, and the foreground ARI of each scene.

    Args:
        num_images: rows of the picture ``held_out.png``.
        folder: where to write; None: ``experiments/`` in the run's folder.
    """

    name = "held_out"
    fields = ("masks", "means", "reconstruction")

    def __init__(self, num_images: int = 8, folder: str | Path | None = None) -> None:
        super().__init__(folder)
        self.num_images = num_images
        self._panel: Picture

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        codes = getattr(trainer.datamodule, "excluded_codes", None)  # type: ignore[attr-defined]
        if not codes or trainer.datamodule.selection.test_split != "excluded":  # type: ignore[attr-defined]
            raise MisconfigurationException(
                "HeldOut needs data that keep something for the test: give them exclude, such as {shape: sphere, "
                "color: green}, and test_split: excluded"
            )
        self._codes: Mapping[str, Any] = codes

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        need(self, batch, "label", "factors")
        result = decompose(module, batch, batch_idx)
        label, images = batch["label"], batch["image"]
        held_out = torch.stack([_equals(batch["factors"][name], code) for name, code in self._codes.items()]).all(dim=0)
        entities = held_out.shape[1]
        true = entity_masks(label, entities)
        if not batch_idx:
            first = slice(self.num_images)
            marked = torch.einsum("blhw,bl->bhw", true[:, 1:], held_out[:, 1:].double())[first] > 0.0
            panel = slot_panel(images[first], result.select(first), label[first], marked)
            self._panel = Picture(panel, f"Test scenes; outlined is what training excluded. Columns: {COLUMNS}.")
        pixels = true.sum(dim=(2, 3))
        error = (result.reconstruction - images).square().mean(dim=1).cpu().double()  # (B, H, W)
        return {
            "ari_fg": adjusted_rand_index(label, result.masks.argmax(dim=1)),
            "iou": object_iou(label, result.masks, entities),
            "mse": torch.einsum("blhw,bhw->bl", true, error) / pixels.clamp(min=1.0),
            "visible": pixels > 0,
            "held_out": held_out,
        }

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        objects = rows["visible"].copy()
        objects[:, 0] = False
        table: list[Row] = []
        for name, chosen in (("held out", objects & rows["held_out"]), ("others", objects & ~rows["held_out"])):
            iou, mse = rows["iou"][chosen], rows["mse"][chosen]
            table.append(
                {
                    "objects": name,
                    "count": int(chosen.sum()),
                    "IoU": float(iou.mean()),
                    "IoU, median": float(np.median(iou)),
                    "MSE": float(mse.mean()),
                    "MSE, median": float(np.median(mse)),
                }
            )
        numbers = {"ari_fg": float(np.nanmean(rows["ari_fg"])), "excluded": {k: str(v) for k, v in self._codes.items()}}
        return Outcome(table, {"": self._panel}, numbers)


def _equals(values: Tensor, code: Any) -> Tensor:
    """Tells for every entity whether a factor (B, L, ...) has a value: ``(B, L)``."""
    wanted = torch.as_tensor(code, dtype=torch.float64)
    return torch.isclose(values.cpu().double(), wanted).reshape(*values.shape[:2], -1).all(dim=2)
