"""What single latents do: traversals and a number (section 4.2 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor

from iodine_pl import SceneModel
from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.common.experiment import Experiment, need
from iodine_pl.callbacks.experiments.common.objects import latents_of_entities, objects_of, scenes_of, varying
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture, Row
from iodine_pl.callbacks.experiments.common.rows import Columns, of_all_processes
from iodine_pl.callbacks.experiments.common.training_scenes import train_rows
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.evaluation.dci import dci
from iodine_pl.evaluation.matching import slot_of_entity
from iodine_pl.evaluation.panels import tile_grid
from iodine_pl.evaluation.probe import FactorKind

__all__ = ["Disentanglement", "latents_by_kl", "traverse"]


def latents_by_kl(mean: Tensor, std: Tensor, prior_scale: float) -> Tensor:
    """Returns the latents' numbers, that with the largest KL to the prior first: ``(D,)`` of ``(D,)``."""
    ratio = (std / prior_scale).square()
    return (ratio + (mean / prior_scale).square() - 1.0 - ratio.log()).argsort(descending=True)


def traverse(model: Any, latents: Tensor, slot: int, latent: int, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Decodes a scene again with one latent of one slot at other values, all else as it is.

    Args:
        model: with ``decode``.
        latents: of all slots, ``(K, D)``.
        slot, latent: which one.
        values: ``(N,)``.
        size: height and width.

    Returns:
        Reconstructions ``(N, C, H, W)``.
    """
    changed = latents.expand(len(values), -1, -1).clone()
    changed[:, slot, latent] = values
    masks, means = model.decode(changed, *size)
    return torch.einsum("nkhw,nkchw->nchw", masks, means)


class Disentanglement(Experiment):
    """Shows what single latents change in a picture, and says by a number how well they keep factors apart.

    ``disentanglement.png``: the slot of one object of a test scene; each row changes one latent, those with the largest
    KL first, from -``width`` to ``width`` standard deviations of the prior. All other latents are at the posterior's
    mean, as the picture shows what the slots know rather than a sample. Beside it the same of another model, as a rule
    a VAE (:class:`iodine_pl.baselines.VAE`), whose one slot is the whole scene.

    Table: DCI (Eastwood & Williams 2018) of each model. Of slots: from the posterior mean of an object's slot to the
    factors of that object. Of a model with one slot, which knows no objects: from its posterior mean to the factors of
    all objects of the scene, from left to right (of as many as every scene has). Fitted on training scenes, reported on
    test scenes.

    Args:
        beside: checkpoint of the other model; None: this one alone.
        num_scenes: training scenes to fit on.
        factors: factor -> ``scalar``, ``angle`` or ``category``; None: those of the dataset.
        num_latents: rows of the picture.
        width: of the traversal.
        folder: where to write; None: ``experiments/`` in the run's folder.
    """

    name = "disentanglement"
    fields = ("masks", "mean", "std")

    def __init__(
        self,
        beside: str | None = None,
        num_scenes: int = 2000,
        factors: Mapping[str, FactorKind] | None = None,
        num_latents: int = 8,
        width: float = 2.0,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.beside = None if beside is None else Path(beside)
        self.num_scenes = num_scenes
        self.factors = factors
        self.num_latents = num_latents
        self.width = width
        self._slots: dict[str, int] = {}
        self._pictures: dict[str, list[list[Tensor]]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "test":
            return
        self._models: dict[str, Any] = {type(pl_module).__name__: pl_module}
        if self.beside is not None:
            other: SceneModel = load_model(self.beside)
            name = type(other).__name__
            self._models[name if name not in self._models else f"{name} of {self.beside}"] = other
        for name, model in self._models.items():
            if not hasattr(model, "decode"):
                raise MisconfigurationException(
                    f"Disentanglement decodes changed latents, but {name} has no decode(latents, height, width)"
                )

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        for model in self._models.values():
            model.to(pl_module.device)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._kinds: Mapping[str, FactorKind] = self.factors or getattr(data, "factor_kinds", {})
        if not self._kinds:
            raise MisconfigurationException(
                "Disentanglement does not know the factors of these data: give factors, such as {x: scalar}"
            )
        mine = train_rows(self, trainer, pl_module, self.num_scenes)
        self._train = of_all_processes(mine, trainer.world_size)

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        need(self, batch, "label", "factors")
        measured: dict[str, Tensor] = {}
        for name, model in self._models.items():
            result = decompose(model, batch, batch_idx)
            self._slots[name] = result.masks.shape[1]
            rows = latents_of_entities(result, batch, "mean")
            measured |= {f"{name}/{key}": values for key, values in rows.items()}
            if not batch_idx:
                self._pictures[name] = self._rows_of(model, batch, result)
        return measured

    def _rows_of(self, model: Any, batch: Any, result: Any) -> list[list[Tensor]]:
        """Returns the tiles of the first scene: a row for each latent, each with the input first.

        The scene is decoded from the posterior's mean.
        """
        image, label = batch["image"][0], batch["label"][:1]
        entities = max(int(label.max()), 1) + 1
        slot = int(slot_of_entity(label, result.masks[:1], entities)[0, 1])  # of the first object
        order = latents_by_kl(result.mean[0, slot], result.std[0, slot], model.prior_scale)
        values = torch.linspace(-self.width, self.width, 7, device=result.mean.device) * model.prior_scale
        rows = []
        size = (image.shape[1], image.shape[2])
        for latent in order[: self.num_latents].tolist():
            pictures = traverse(model, result.mean[0], slot, latent, values, size)
            rows.append([x.detach().float().cpu().clamp(0, 1).expand(3, -1, -1) for x in (image, *pictures)])
        return rows

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        table: list[Row] = []
        for name in self._models:
            train, test = (
                {key.removeprefix(f"{name}/"): x for key, x in part.items() if key.startswith(f"{name}/")}
                for part in (self._train, rows)
            )
            slots, kinds = self._slots[name], dict(self._kinds)
            if slots > 1:
                fitted, scored = objects_of(train), objects_of(test)
            else:
                objects = min(int(part["visible"][:, 1:].sum(axis=1).min()) for part in (train, test))
                fitted, scored = scenes_of(train, objects), scenes_of(test, objects)
                kinds = {f"{i + 1} {factor}": kind for i in range(objects) for factor, kind in kinds.items()}
            kinds = varying(self, kinds, fitted)
            found = dci((fitted.latents[:, -1], fitted.factors), (scored.latents[:, -1], scored.factors), kinds)
            table.append({"model": name, "slots": slots, "latents": fitted.latents.shape[2], **found._asdict()})
        caption = (
            f"A row for each latent of an object's slot, in {' and '.join(self._models)}: the input, then the scene "
            f"with this latent from -{self.width:g} to {self.width:g} standard deviations of the prior."
        )
        return Outcome(table, {"": Picture(self._picture(), caption)}, {})

    def _picture(self) -> NDArray[np.uint8]:
        models = list(self._pictures.values())
        rows = []
        for i in range(min(len(rows) for rows in models)):
            row = list(models[0][i])
            for other in models[1:]:
                row += [torch.ones_like(row[0]), *other[i]]  # a white tile between two models
            rows.append(row)
        return tile_grid(rows)
